#include <algorithm>
#include <atomic>
#include <limits>

#include "tensor/core/tensor.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/vector_math.h"

namespace lithe {
namespace {

// Checks every label before any parallel work (an exception must not leave a thread) and returns
// how many rows count.
int64_t count_rows(const KernelArgs& args, const int64_t* labels, int64_t rows, int64_t classes,
                   int64_t ignore_index) {
  int64_t counted = 0;
  for (int64_t r = 0; r < rows; ++r) {
    if (labels[r] == ignore_index) {
      continue;
    }
    if (labels[r] < 0 || labels[r] >= classes) {
      throw ShapeError(args.op,
                       "label {} of row {} is outside [0, {}); fix the data or ignore it with {}",
                       labels[r], r, classes, ignore_index);
    }
    ++counted;
  }
  return counted;
}

// Sum of f(i) over [begin, end).
template <typename A, typename F>
inline A sum_over(int64_t begin, int64_t end, F&& f) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = begin; i < end; ++i) {
    sum += f(i);
  }
  return sum;
}

template <typename T>
acc_t<T> largest_of(const T* x, int64_t n) {
  using A = acc_t<T>;
  A largest = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const A v = static_cast<A>(x[i]);
    largest = v > largest ? v : largest;
  }
  return largest;
}

// Whether `label` is the first of the largest logits; never in a row with NaN.
template <typename T>
bool is_largest(const T* x, int64_t n, int64_t label) {
  using A = acc_t<T>;
  const A chosen = static_cast<A>(x[label]);
  int beaten = static_cast<int>(chosen != chosen);
#pragma omp simd reduction(| : beaten)
  for (int64_t i = 0; i < label; ++i) {
    beaten |= static_cast<int>(!(static_cast<A>(x[i]) < chosen));
  }
#pragma omp simd reduction(| : beaten)
  for (int64_t i = label + 1; i < n; ++i) {
    beaten |= static_cast<int>(!(static_cast<A>(x[i]) <= chosen));
  }
  return beaten == 0;
}

}  // namespace

void cross_entropy_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<CrossEntropyAttrs>();
  const int64_t classes = args.in[0].shape.back();
  const int64_t rows = args.in[1].numel();
  const int64_t* labels = args.in[1].as<int64_t>();
  const int64_t counted = count_rows(args, labels, rows, classes, attrs.ignore_index);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* logits = args.in[0].as<T>();
    A* log_sum_exp = args.out[1].as<A>();
    A* losses = static_cast<A*>(args.workspace);
    const A smoothing = static_cast<A>(attrs.label_smoothing);
    parallel_for(rows, 8 * classes, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* x = logits + r * classes;
        const A largest = largest_of(x, classes);
        const A sum = sum_over<A>(
            0, classes, [=](int64_t i) { return vec::exp(static_cast<A>(x[i]) - largest); });
        log_sum_exp[r] = largest + std::log(sum);
        losses[r] = 0;
        if (labels[r] == attrs.ignore_index) {
          continue;
        }
        losses[r] = (1 - smoothing) * (log_sum_exp[r] - static_cast<A>(x[labels[r]]));
        if (smoothing > 0) {
          const A total = sum_over<A>(0, classes, [=](int64_t i) { return static_cast<A>(x[i]); });
          losses[r] += smoothing * (log_sum_exp[r] - total / static_cast<A>(classes));
        }
      }
    });
    const A total = sum_over<A>(0, rows, [=](int64_t r) { return losses[r]; });
    *args.out[0].as<A>() = counted == 0 ? A(0) : total / static_cast<A>(counted);
  });
}

void cross_entropy_grad_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<CrossEntropyAttrs>();
  const int64_t classes = args.in[1].shape.back();
  const int64_t rows = args.in[2].numel();
  const int64_t* labels = args.in[2].as<int64_t>();
  const int64_t counted = count_rows(args, labels, rows, classes, attrs.ignore_index);
  dispatch_floating(args.in[1].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* logits = args.in[1].as<T>();
    const A* log_sum_exp = args.in[3].as<A>();
    T* dlogits = args.out[0].as<T>();
    const A factor = *args.in[0].as<A>() / static_cast<A>(std::max<int64_t>(counted, 1));
    const A smoothing = static_cast<A>(attrs.label_smoothing);
    const A elsewhere = smoothing / static_cast<A>(classes);
    parallel_for(rows, 8 * classes, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* x = logits + r * classes;
        T* dx = dlogits + r * classes;
        if (labels[r] == attrs.ignore_index) {
          std::fill_n(dx, classes, T(A(0)));
          continue;
        }
        const A lse = log_sum_exp[r];
        // Written in place over the logits, so the label's own element is computed before.
        const A at_label =
            vec::exp(static_cast<A>(x[labels[r]]) - lse) - elsewhere - (1 - smoothing);
#pragma omp simd
        for (int64_t i = 0; i < classes; ++i) {
          dx[i] = T(factor * (vec::exp(static_cast<A>(x[i]) - lse) - elsewhere));
        }
        dx[labels[r]] = T(factor * at_label);
      }
    });
  });
}

void mse_cpu(const KernelArgs& args) {
  const int64_t n = args.in[0].numel();
  const int64_t chunks = (n + kMseChunk - 1) / kMseChunk;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    const T* target = args.in[1].as<T>();
    A* sums = static_cast<A*>(args.workspace);
    parallel_for(chunks, kMseChunk, [=](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        sums[c] = sum_over<A>(c * kMseChunk, std::min((c + 1) * kMseChunk, n), [=](int64_t i) {
          const A d = static_cast<A>(x[i]) - static_cast<A>(target[i]);
          return d * d;
        });
      }
    });
    const A total = sum_over<A>(0, chunks, [=](int64_t c) { return sums[c]; });
    *args.out[0].as<A>() = n == 0 ? A(0) : total / static_cast<A>(n);
  });
}

void mse_grad_cpu(const KernelArgs& args) {
  const int64_t n = args.in[1].numel();
  dispatch_floating(args.in[1].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[1].as<T>();
    const T* target = args.in[2].as<T>();
    T* dx = args.out[0].as<T>();
    const A factor = *args.in[0].as<A>() * A(2) / static_cast<A>(std::max<int64_t>(n, 1));
    parallel_for(n, 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        dx[i] = T(factor * (static_cast<A>(x[i]) - static_cast<A>(target[i])));
      }
    });
  });
}

void count_correct_cpu(const KernelArgs& args) {
  const int64_t ignore_index = args.attr<CountCorrectAttrs>().ignore_index;
  const int64_t classes = args.in[0].shape.back();
  const int64_t rows = args.in[1].numel();
  const int64_t* labels = args.in[1].as<int64_t>();
  count_rows(args, labels, rows, classes, ignore_index);
  std::atomic<int64_t> correct = 0;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* logits = args.in[0].as<T>();
    parallel_for(rows, classes, [&](int64_t begin, int64_t end) {
      int64_t own = 0;
      for (int64_t r = begin; r < end; ++r) {
        own += labels[r] != ignore_index && is_largest(logits + r * classes, classes, labels[r]);
      }
      correct += own;
    });
  });
  *args.out[0].as<int64_t>() = correct;
}

}  // namespace lithe
