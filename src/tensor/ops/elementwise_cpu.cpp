#include <algorithm>

#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/strided.h"

namespace lithe {
namespace {

template <Binary kKind, typename A>
inline A combine(A a, A b) {
  if constexpr (kKind == Binary::add) {
    return a + b;
  } else if constexpr (kKind == Binary::sub) {
    return a - b;
  } else if constexpr (kKind == Binary::mul) {
    return a * b;
  } else {
    return a / b;
  }
}

// One piece of the last dimension; a stride is 1, or 0 where that operand repeats its element.
template <Binary kKind, typename T>
void combine_row(const T* a, int64_t stride_a, const T* b, int64_t stride_b, T* y, int64_t n) {
  using A = acc_t<T>;
  if (stride_a == 0) {
    const A s = static_cast<A>(*a);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      y[i] = T(combine<kKind>(s, static_cast<A>(b[i])));
    }
  } else if (stride_b == 0) {
    const A s = static_cast<A>(*b);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      y[i] = T(combine<kKind>(static_cast<A>(a[i]), s));
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      y[i] = T(combine<kKind>(static_cast<A>(a[i]), static_cast<A>(b[i])));
    }
  }
}

// Equal shapes merge to one row, a scalar to one row of stride 0, a trailing vector to two
// dimensions.
Strided<2> broadcast_walk(const Shape& a, const Shape& b, const Shape& out) {
  const auto strides_a = broadcast_strides(a, out);
  const auto strides_b = broadcast_strides(b, out);
  Strided<2> walk;
  for (int d = 0; d < out.rank(); ++d) {
    walk.push(out[d], {strides_a[static_cast<size_t>(d)], strides_b[static_cast<size_t>(d)]});
  }
  walk.finish();
  return walk;
}

template <Binary kKind, typename T>
void run_binary(const KernelArgs& args) {
  const T* a = args.in[0].as<T>();
  const T* b = args.in[1].as<T>();
  T* y = args.out[0].as<T>();
  const Strided<2> walk = broadcast_walk(args.in[0].shape, args.in[1].shape, args.out[0].shape);
  const Strided<2>::Offsets stride = walk.inner_stride();
  parallel_for(args.out[0].numel(), 1, [&](int64_t begin, int64_t end) {
    for_rows(walk, begin, end, [&](int64_t i, const Strided<2>::Offsets& at, int64_t n) {
      combine_row<kKind>(a + at[0], stride[0], b + at[1], stride[1], y + i, n);
    });
  });
}

}  // namespace

void binary_cpu(const KernelArgs& args) {
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    switch (args.attr<BinaryAttrs>().kind) {
      case Binary::add:
        return run_binary<Binary::add, T>(args);
      case Binary::sub:
        return run_binary<Binary::sub, T>(args);
      case Binary::mul:
        return run_binary<Binary::mul, T>(args);
      case Binary::div:
        return run_binary<Binary::div, T>(args);
    }
  });
}

void scale_cpu(const KernelArgs& args) {
  const double factor = args.attr<ScaleAttrs>().factor;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const A f = static_cast<A>(factor);
    parallel_for(args.out[0].numel(), 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        y[i] = T(static_cast<A>(x[i]) * f);
      }
    });
  });
}

void fill_cpu(const KernelArgs& args) {
  const double value = args.attr<FillAttrs>().value;
  dispatch_any(args.out[0].dtype, args.op, [&]<typename T>() {
    T* y = args.out[0].as<T>();
    const T filler = convert<T>(value);
    parallel_for(args.out[0].numel(), 1,
                 [=](int64_t begin, int64_t end) { std::fill(y + begin, y + end, filler); });
  });
}

void cast_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename From>() {
    dispatch_floating(args.out[0].dtype, args.op, [&]<typename To>() {
      const From* x = args.in[0].as<From>();
      To* y = args.out[0].as<To>();
      parallel_for(args.out[0].numel(), 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          y[i] = convert<To>(x[i]);
        }
      });
    });
  });
}

}  // namespace lithe
