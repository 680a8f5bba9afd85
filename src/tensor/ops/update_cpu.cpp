#include <cmath>
#include <cstring>
#include <type_traits>

#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

// Calls f.operator()<T, G>(): G is T, or float for what was widened to fp32, or 16 bits beside fp32
// (see the shape rules).
template <typename F>
void dispatch_pair(DType wide, DType narrow, std::string_view where, F&& f) {
  dispatch_floating(wide, where, [&]<typename T>() {
    if (narrow == dtype_of<T>::value) {
      f.template operator()<T, T>();
      return;
    }
    if constexpr (is_half_v<T>) {
      if (narrow == DType::f32) {
        f.template operator()<T, float>();
        return;
      }
    }
    if constexpr (std::is_same_v<T, float>) {
      if (narrow == DType::bf16 || narrow == DType::f16) {
        narrow == DType::bf16 ? f.template operator()<float, bf16>()
                              : f.template operator()<float, f16>();
        return;
      }
    }
    throw ShapeError(where, "has no kernel for a {} tensor and a {} gradient; cast the gradient",
                     dtype_name(wide), dtype_name(narrow));
  });
}

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

}  // namespace

void adamw_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<AdamWAttrs>();
  int64_t& step = *args.out[3].as<int64_t>();
  ++step;
  const double lr = scalar(args.in[5]);
  const double correction1 = 1 - std::pow(attrs.beta1, static_cast<double>(step));
  const double root2 = std::sqrt(1 - std::pow(attrs.beta2, static_cast<double>(step)));
  const bool corrected = attrs.epsilon == AdamEpsilon::corrected;
  const double decay_factor = 1 - lr * attrs.weight_decay;
  dispatch_pair(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    using A = acc_t<T>;
    T* w = args.out[0].as<T>();
    const G* gradient = args.in[1].as<G>();
    A* m = args.out[1].as<A>();
    A* v = args.out[2].as<A>();
    const A scale = static_cast<A>(gradient_scale(args.in[6]));
    const A beta1 = static_cast<A>(attrs.beta1);
    const A beta2 = static_cast<A>(attrs.beta2);
    const A rest1 = static_cast<A>(1 - attrs.beta1);
    const A rest2 = static_cast<A>(1 - attrs.beta2);
    const A eps = static_cast<A>(attrs.eps);
    // Both conventions are w = (w before - rate m / (sqrt(v) root + eps)) after.
    const A rate = static_cast<A>(corrected ? lr / correction1 : lr * root2 / correction1);
    const A root = static_cast<A>(corrected ? 1 / root2 : 1);
    const A before = static_cast<A>(corrected ? decay_factor : 1);
    const A after = static_cast<A>(corrected ? 1 : decay_factor);
    parallel_for(args.out[0].numel(), 8, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const A g = scale * static_cast<A>(gradient[i]);
        const A m_new = beta1 * m[i] + rest1 * g;
        const A v_new = beta2 * v[i] + rest2 * g * g;
        const A step_size = rate * m_new / (std::sqrt(v_new) * root + eps);
        m[i] = m_new;
        v[i] = v_new;
        store(w[i], (before * static_cast<A>(w[i]) - step_size) * after);
      }
    });
  });
  if (args.out.size() > 4) {
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
  dispatch_pair(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    using A = acc_t<T>;
    T* w = args.out[0].as<T>();
    const G* gradient = args.in[1].as<G>();
    const A lr = static_cast<A>(scalar(args.in[4]));
    const A scale = static_cast<A>(gradient_scale(args.in[5]));
    const A decay = static_cast<A>(attrs.weight_decay);
    if (!has_momentum) {
      parallel_for(args.out[0].numel(), 4, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          const A old = static_cast<A>(w[i]);
          const A g = scale * static_cast<A>(gradient[i]) + decay * old;
          store(w[i], old - lr * g);
        }
      });
      return;
    }
    A* velocity = args.out[1].as<A>();
    const A momentum = static_cast<A>(attrs.momentum);
    // The step is along g' + look_ahead * velocity: nesterov's correction, or the velocity alone.
    const A own = attrs.nesterov ? A(1) : A(0);
    const A along = attrs.nesterov ? momentum : A(1);
    parallel_for(args.out[0].numel(), 6, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const A old = static_cast<A>(w[i]);
        const A g = scale * static_cast<A>(gradient[i]) + decay * old;
        const A moved = first ? g : momentum * velocity[i] + g;
        velocity[i] = moved;
        store(w[i], old - lr * (own * g + along * moved));
      }
    });
  });
}

void accumulate_cpu(const KernelArgs& args) {
  const TensorRef& sum = args.out[0];
  const TensorRef& gradient = args.in[1];
  // Here the sum may be the wider one.
  dispatch_pair(gradient.dtype, sum.dtype, args.op, [&]<typename T, typename S>() {
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
  const int64_t n = args.in[0].numel();
  const int64_t chunks = (n + kSumSquaresChunk - 1) / kSumSquaresChunk;
  double* partial = static_cast<double*>(args.workspace);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    parallel_for(chunks, kSumSquaresChunk, [=](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t last = std::min(n, (chunk + 1) * kSumSquaresChunk);
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = chunk * kSumSquaresChunk; i < last; ++i) {
          const double value = static_cast<double>(static_cast<acc_t<T>>(x[i]));
          sum += value * value;
        }
        partial[chunk] = sum;
      }
    });
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      total += partial[chunk];
    }
    *args.out[0].as<acc_t<T>>() = static_cast<acc_t<T>>(total);
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
