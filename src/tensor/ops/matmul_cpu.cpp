#include "tensor/core/tensor.h"
#include "tensor/ops/activation_math.h"
#include "tensor/ops/blas.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/widened.h"

namespace lithe {
namespace {

// c = alpha op(a) op(b) + beta c.
template <typename A>
void multiply(const KernelArgs& args, const A* a, const A* b, double beta, A* c) {
  const auto attrs = args.attr<MatmulAttrs>();
  const Shape& sa = args.in[0].shape;
  const Shape& sb = args.in[1].shape;
  const Shape& sc = args.out[0].shape;
  blas::Gemm g{.transpose_a = attrs.transpose_a,
               .transpose_b = attrs.transpose_b,
               .m = sc.back(1),
               .n = sc.back(0),
               .k = attrs.transpose_a ? sa.back(1) : sa.back(0),
               .lda = sa.back(0),
               .ldb = sb.back(0),
               .ldc = sc.back(0)};
  blas::Batch batch{.count = sc.product(0, sc.rank() - 2),
                    .stride_a = sa.rank() > 2 ? sa.back(0) * sa.back(1) : 0,
                    .stride_b = sb.rank() > 2 ? sb.back(0) * sb.back(1) : 0,
                    .stride_c = sc.back(0) * sc.back(1)};
  if (sb.rank() == 2 && !attrs.transpose_a) {
    g.m *= batch.count;  // all batches share b: one tall product
    batch.count = 1;
  }
  if (batch.count == 1) {
    blas::gemm(g, attrs.alpha, a, b, beta, c);
  } else {
    blas::gemm_batched(g, batch, attrs.alpha, a, b, beta, c);
  }
}

// What follows the product of a linear layer, in one pass: z = product + bias (bias may be null)
// goes to pre (may be null) and f(z) to y. The product may lie in pre or y. A pass over the whole
// product measured as fast as finishing tile by tile, and leaves BLAS its large product.
template <typename T>
struct Epilogue {
  const acc_t<T>* product;
  const T* bias;
  T* pre;
  T* y;
  int64_t columns;

  template <Activation kKind>
  void run(int64_t begin, int64_t end) const {
    using A = acc_t<T>;
    const T* b = bias;
    const int64_t width = columns;
    for (int64_t r = begin; r < end; ++r) {
      const A* from = product + r * width;
      T* to = y + r * width;
      if (b != nullptr && pre != nullptr) {
        T* keep = pre + r * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const A z = from[i] + static_cast<A>(b[i]);
          keep[i] = T(z);
          to[i] = T(activate<kKind>(z));
        }
      } else if (pre != nullptr) {
        T* keep = pre + r * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const A z = from[i];
          keep[i] = T(z);
          to[i] = T(activate<kKind>(z));
        }
      } else if (b != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          to[i] = T(from[i] + static_cast<A>(b[i]));
        }
      } else {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          to[i] = T(from[i]);
        }
      }
    }
  }
};

}  // namespace

void matmul_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    Scratch scratch(args.workspace);
    const auto* a = widened<T>(args.in[0], scratch);
    const auto* b = widened<T>(args.in[1], scratch);
    const T* addend = args.in.size() > 2 ? args.in[2].as<T>() : nullptr;
    const double beta = addend == nullptr ? 0 : 1;
    T* y = args.out[0].as<T>();
    const int64_t n = args.out[0].numel();
    if constexpr (is_half_v<T>) {
      float* c = scratch.take(n);
      if (addend != nullptr) {
        convert_all(addend, n, c);
      }
      multiply(args, a, b, beta, c);
      convert_all(c, n, y);
    } else {
      if (addend != nullptr && addend != y) {
        convert_all(addend, n, y);
      }
      multiply(args, a, b, beta, y);
    }
  });
}

void linear_cpu(const KernelArgs& args) {
  const Activation kind = args.attr<LinearAttrs>().activation;
  const Shape& x_shape = args.in[0].shape;
  const Shape& w_shape = args.in[1].shape;
  const blas::Gemm g{.transpose_b = true,
                     .m = x_shape.product(0, x_shape.rank() - 1),
                     .n = w_shape[0],
                     .k = w_shape[1],
                     .lda = w_shape[1],
                     .ldb = w_shape[1],
                     .ldc = w_shape[0]};
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    Scratch scratch(args.workspace);
    const auto* x = widened<T>(args.in[0], scratch);
    const auto* w = widened<T>(args.in[1], scratch);
    const bool biased = args.in.size() > 2 && args.in[2].data != nullptr;
    T* y = args.out[0].as<T>();
    T* pre = kind == Activation::none ? nullptr : args.out[1].as<T>();
    acc_t<T>* product = nullptr;
    if constexpr (is_half_v<T>) {
      product = scratch.take(g.m * g.n);
    } else {
      product = pre == nullptr ? y : pre;
    }
    blas::gemm(g, 1, x, w, 0, product);
    if (!is_half_v<T> && !biased && pre == nullptr) {
      return;
    }
    const Epilogue<T> epilogue{product, biased ? args.in[2].as<T>() : nullptr, pre, y, g.n};
    dispatch_activation(kind, [&]<Activation kKind>() {
      parallel_for(g.m, g.n * 8,
                   [&](int64_t begin, int64_t end) { epilogue.template run<kKind>(begin, end); });
    });
  });
}

void linear_stack_cpu(const KernelArgs& args) {
  for (size_t i = 0; i < args.out.size(); ++i) {
    linear_cpu(StackedLinear(args, i).args());
  }
}

void bias_grad_cpu(const KernelArgs& args) { sum_rows(args, args.in[0], args.out[0]); }

void linear_dw_cpu(const KernelArgs& args) {
  const Shape& dw = args.out[0].shape;
  const TensorRef& dy = args.in[0];
  const blas::Gemm g{.transpose_a = true,
                     .m = dw[0],
                     .n = dw[1],
                     .k = dy.shape.product(0, dy.shape.rank() - 1),
                     .lda = dw[0],
                     .ldb = dw[1],
                     .ldc = dw[1]};
  dispatch_floating(dy.dtype, args.op, [&]<typename T>() {
    Scratch scratch(args.workspace);
    const auto* d = widened<T>(dy, scratch);
    const auto* x = widened<T>(args.in[1], scratch);
    if constexpr (is_half_v<T>) {
      float* product = scratch.take(args.out[0].numel());
      blas::gemm(g, 1, d, x, 0, product);
      convert_all(product, args.out[0].numel(), args.out[0].as<T>());
    } else {
      blas::gemm(g, 1, d, x, 0, args.out[0].as<T>());
    }
  });
  if (args.out.size() > 1) {
    sum_rows(args, dy, args.out[1]);
  }
}

void linear_stack_dw_cpu(const KernelArgs& args) {
  const auto count = static_cast<size_t>(args.attr<LinearStackDwAttrs>().count);
  for (size_t i = 0; i < count; ++i) {
    linear_dw_cpu(StackedLinearDw(args, i).args());
  }
}

}  // namespace lithe
