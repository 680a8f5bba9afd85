#include <cmath>
#include <cstring>

#include "tensor/ops/parallel.h"
#include "tensor/ops/update_dtypes.h"
#include "tensor/ops/update_measures.h"

namespace lithe {
namespace {

double scalar(const TensorRef& t) {
  return t.dtype == DType::f64 ? *t.as<double>() : static_cast<double>(*t.as<float>());
}

// to = value. The 16-bit types are classes, whose copies keep GCC from vectorising a loop.
template <typename T, typename A>
inline void store(T& to, A value) {
  if constexpr (is_half_v<T>) {
    to.bits = T(value).bits;
  } else {
    to = T(value);
  }
}

// to = from, rounded.
void convert_into(const TensorRef& to, const TensorRef& from, std::string_view op) {
  dispatch_floating(to.dtype, op, [&]<typename T>() {
    dispatch_floating(from.dtype, op, [&]<typename S>() {
      T* out = to.as<T>();
      const S* in = from.as<S>();
      parallel_for(to.numel(), 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          store(out[i], static_cast<acc_t<S>>(in[i]));
        }
      });
    });
  });
}

// The factor on the gradient; 1 where none was given.
double gradient_scale(const TensorRef& t) { return t.data == nullptr ? 1 : scalar(t); }

void write_scalar(const TensorRef& to, double value) {
  if (to.dtype == DType::f64) {
    *to.as<double>() = value;
  } else {
    *to.as<float>() = static_cast<float>(value);
  }
}

// The sums over [0, n) of what sum(begin, end) gives of a chunk, joined in order.
template <typename Sum>
ChunkSums sum_chunks(const KernelArgs& args, int64_t n, int64_t cost, const Sum& sum) {
  auto* partial = static_cast<ChunkSums*>(args.workspace);
  const int64_t chunks = update_chunks(n);
  parallel_for(chunks, kUpdateChunk * cost, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      partial[chunk] = sum(chunk * kUpdateChunk, std::min(n, (chunk + 1) * kUpdateChunk));
    }
  });
  ChunkSums total;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    total.add(partial[chunk]);
  }
  return total;
}

// Runs update.run<kMeasured>(begin, end) over the weight, and writes the last outputs where
// measures are asked for.
template <typename Update>
void run_update(const KernelArgs& args, const UpdateMeasures& measures, int64_t cost,
                const Update& update) {
  const int64_t n = args.out[0].numel();
  if (!measures.any()) {
    parallel_for(n, cost,
                 [&](int64_t begin, int64_t end) { update.template run<false>(begin, end); });
    return;
  }
  const ChunkSums total = sum_chunks(args, n, cost, [&](int64_t begin, int64_t end) {
    return update.template run<true>(begin, end);
  });
  size_t next = args.out.size();
  if (measures.change != ChangeMetric::none) {
    write_scalar(args.out[--next], change_of(measures, total, n));
  }
  if (measures.squares) {
    write_scalar(args.out[--next], total.squares);
  }
}

// Both conventions are w = (w before - rate m / (sqrt(v) root + eps)) after.
template <typename T, typename G>
struct AdamW {
  using A = acc_t<T>;
  T* w;
  const G* gradient;
  A* m;
  A* v;
  A scale, beta1, beta2, rest1, rest2, eps, rate, root, before, after;
  ChangeRule<A> rule;

  template <bool kMeasured>
  ChunkSums run(int64_t begin, int64_t end) const {
    double squares = 0;
    double moved = 0;
    double size = 0;
#pragma omp simd reduction(+ : squares, moved, size)
    for (int64_t i = begin; i < end; ++i) {
      const A arrived = static_cast<A>(gradient[i]);
      const A old = static_cast<A>(w[i]);
      const A g = scale * arrived;
      const A m_new = beta1 * m[i] + rest1 * g;
      const A v_new = beta2 * v[i] + rest2 * g * g;
      const A step_size = rate * m_new / (std::sqrt(v_new) * root + eps);
      const A w_new = (before * old - step_size) * after;
      m[i] = m_new;
      v[i] = v_new;
      store(w[i], w_new);
      if constexpr (kMeasured) {
        squares += static_cast<double>(arrived) * static_cast<double>(arrived);
        moved += static_cast<double>(rule.magnitude(old - w_new) / rule.under(old));
        size += static_cast<double>(rule.magnitude(old));
      }
    }
    return {squares, moved, size};
  }
};

template <typename T, typename G>
struct Sgd {
  using A = acc_t<T>;
  T* w;
  const G* gradient;
  A* velocity;  // null: no momentum
  A lr, scale, decay, momentum;
  A own, along;  // the step is along own g' + along velocity: nesterov's, or the velocity alone
  bool first;
  ChangeRule<A> rule;

  template <bool kMeasured>
  ChunkSums run(int64_t begin, int64_t end) const {
    return velocity != nullptr ? run<kMeasured, true>(begin, end)
                               : run<kMeasured, false>(begin, end);
  }
  template <bool kMeasured, bool kMomentum>
  ChunkSums run(int64_t begin, int64_t end) const {
    double squares = 0;
    double moved = 0;
    double size = 0;
#pragma omp simd reduction(+ : squares, moved, size)
    for (int64_t i = begin; i < end; ++i) {
      const A arrived = static_cast<A>(gradient[i]);
      const A old = static_cast<A>(w[i]);
      const A g = scale * arrived + decay * old;
      A direction = g;
      if constexpr (kMomentum) {
        const A now = first ? g : momentum * velocity[i] + g;
        velocity[i] = now;
        direction = own * g + along * now;
      }
      const A w_new = old - lr * direction;
      store(w[i], w_new);
      if constexpr (kMeasured) {
        squares += static_cast<double>(arrived) * static_cast<double>(arrived);
        moved += static_cast<double>(rule.magnitude(old - w_new) / rule.under(old));
        size += static_cast<double>(rule.magnitude(old));
      }
    }
    return {squares, moved, size};
  }
};

}  // namespace

void adamw_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<AdamWAttrs>();
  int64_t& step = *args.out[3].as<int64_t>();
  ++step;
  const double lr = scalar(args.in[5]);
  const double correction1 = 1 - std::pow(attrs.beta1, static_cast<double>(step));
  const double root2 = std::sqrt(1 - std::pow(attrs.beta2, static_cast<double>(step)));
  const bool corrected = attrs.epsilon == AdamEpsilon::corrected;
  const double decay = 1 - lr * attrs.weight_decay;
  dispatch_update(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    using A = acc_t<T>;
    run_update(
        args, attrs.measures, 8,
        AdamW<T, G>{.w = args.out[0].as<T>(),
                    .gradient = args.in[1].as<G>(),
                    .m = args.out[1].as<A>(),
                    .v = args.out[2].as<A>(),
                    .scale = static_cast<A>(gradient_scale(args.in[6])),
                    .beta1 = static_cast<A>(attrs.beta1),
                    .beta2 = static_cast<A>(attrs.beta2),
                    .rest1 = static_cast<A>(1 - attrs.beta1),
                    .rest2 = static_cast<A>(1 - attrs.beta2),
                    .eps = static_cast<A>(attrs.eps),
                    .rate = static_cast<A>(corrected ? lr / correction1 : lr * root2 / correction1),
                    .root = static_cast<A>(corrected ? 1 / root2 : 1),
                    .before = static_cast<A>(corrected ? decay : 1),
                    .after = static_cast<A>(corrected ? 1 : decay),
                    .rule = ChangeRule<A>(attrs.measures)});
  });
  if (args.in.size() > 7 && args.in[7].data != nullptr) {
    convert_into(args.out[4], args.out[0], args.op);
  }
}

void assign_cpu(const KernelArgs& args) { convert_into(args.out[0], args.in[1], args.op); }

void sgd_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<SgdAttrs>();
  const bool has_momentum = attrs.momentum != 0;
  bool first = false;
  if (has_momentum) {
    int64_t& step = *args.out[2].as<int64_t>();
    first = step == 0;
    ++step;
  }
  dispatch_update(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    using A = acc_t<T>;
    run_update(args, attrs.measures, has_momentum ? 6 : 4,
               Sgd<T, G>{.w = args.out[0].as<T>(),
                         .gradient = args.in[1].as<G>(),
                         .velocity = has_momentum ? args.out[1].as<A>() : nullptr,
                         .lr = static_cast<A>(scalar(args.in[4])),
                         .scale = static_cast<A>(gradient_scale(args.in[5])),
                         .decay = static_cast<A>(attrs.weight_decay),
                         .momentum = static_cast<A>(attrs.momentum),
                         .own = attrs.nesterov ? A(1) : A(0),
                         .along = attrs.nesterov ? static_cast<A>(attrs.momentum) : A(1),
                         .first = first,
                         .rule = ChangeRule<A>(attrs.measures)});
  });
}

void accumulate_cpu(const KernelArgs& args) {
  const TensorRef& sum = args.out[0];
  const TensorRef& gradient = args.in[1];
  // Here the sum may be the wider one.
  dispatch_update(gradient.dtype, sum.dtype, args.op, [&]<typename T, typename S>() {
    const T* x = gradient.as<T>();
    S* s = sum.as<S>();
    parallel_for(sum.numel(), 2, [=](int64_t begin, int64_t end) {
      using A = acc_t<T>;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        store(s[i], static_cast<A>(s[i]) + static_cast<A>(x[i]));
      }
    });
  });
}

void clear_cpu(const KernelArgs& args) {
  std::byte* data = args.out[0].as<std::byte>();
  parallel_for(args.out[0].bytes(), 1, [=](int64_t begin, int64_t end) {
    std::memset(data + begin, 0, static_cast<size_t>(end - begin));
  });
}

void sum_squares_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    const auto sum = [=](int64_t begin, int64_t end) {
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = begin; i < end; ++i) {
        const double value = static_cast<double>(static_cast<acc_t<T>>(x[i]));
        squares += value * value;
      }
      return ChunkSums{.squares = squares};
    };
    write_scalar(args.out[0], sum_chunks(args, args.in[0].numel(), 1, sum).squares);
  });
}

void clip_factor_cpu(const KernelArgs& args) {
  double sum = 0;
  for (const TensorRef& t : args.in) {
    sum += scalar(t);
  }
  const double norm = std::sqrt(sum);
  const double factor = args.attr<ClipAttrs>().max_norm / (norm + 1e-6);
  *args.out[0].as<float>() = static_cast<float>(norm);
  *args.out[1].as<float>() = static_cast<float>(factor > 1 ? 1 : factor);  // NaN passes
}

}  // namespace lithe
