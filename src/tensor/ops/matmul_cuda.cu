#include "tensor/core/tensor.h"
#include "tensor/ops/activation_math.h"
#include "tensor/ops/blas_cuda.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/matmul.h"

namespace lithe {
namespace {

using namespace device;

void zero(const KernelArgs& args, const TensorRef& t) {
  cuda_check(cudaMemsetAsync(t.data, 0, static_cast<size_t>(t.bytes()), stream_of(args)), args.op,
             "clearing");
}

void product(const KernelArgs& args, const blas_cuda::Gemm& g, const blas_cuda::Operands& x) {
  blas_cuda::gemm(g, x, args.workspace, args.workspace_bytes, stream_of(args), args.op);
}

template <Activation kKind, typename T>
struct Activate {
  __device__ T operator()(T x) const { return narrow<T>(activate<kKind>(widen<acc_t<T>>(x))); }
};

// y [rows, columns] += bias [columns], for what the library's epilogue does not cover.
template <typename T>
__global__ void __launch_bounds__(256)
    add_bias_kernel(int64_t n, int64_t columns, const T* bias, T* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) {
    using A = acc_t<T>;
    y[i] = narrow<T>(widen<A>(y[i]) + widen<A>(bias[i % columns]));
  }
}

void add_bias(const KernelArgs& args, const TensorRef& y) {
  dispatch_floating(y.dtype, args.op, [&]<typename T>() {
    add_bias_kernel<<<blocks_for(y.numel(), 256), 256, 0, stream_of(args)>>>(
        y.numel(), y.shape.back(), args.in[2].as<T>(), y.as<T>());
    check_launch(args.op);
  });
}

template <int kVector, typename T>
struct BiasTerm {
  const T* dy;
  int64_t columns;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[1][kVector]) const {
    const Pack<T, kVector> d = load<kVector>(dy + row * columns + column);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sums[0][j] += widen<acc_t<T>>(d.at[j]);
    }
  }
};

}  // namespace

void matmul_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<MatmulAttrs>();
  const Shape& a = args.in[0].shape;
  const Shape& b = args.in[1].shape;
  const Shape& c = args.out[0].shape;
  if (c.numel() == 0) {
    return;
  }
  blas_cuda::Gemm g{.dtype = args.out[0].dtype,
                    .transpose_a = attrs.transpose_a,
                    .transpose_b = attrs.transpose_b,
                    .m = c.back(1),
                    .n = c.back(0),
                    .k = attrs.transpose_a ? a.back(1) : a.back(0),
                    .lda = a.back(0),
                    .ldb = b.back(0),
                    .ldc = c.back(0),
                    .batch = c.product(0, c.rank() - 2),
                    .stride_a = a.rank() > 2 ? a.back(0) * a.back(1) : 0,
                    .stride_b = b.rank() > 2 ? b.back(0) * b.back(1) : 0,
                    .stride_c = c.back(0) * c.back(1)};
  if (g.k == 0) {
    zero(args, args.out[0]);
    return;
  }
  if (b.rank() == 2 && !attrs.transpose_a) {
    g.m *= g.batch;  // all batches share b: one tall product
    g.batch = 1;
  }
  if (g.batch == 1) {
    g.stride_a = g.stride_b = g.stride_c = 0;  // one plan, whatever the rank
  }
  product(
      args, g,
      {.a = args.in[0].data, .b = args.in[1].data, .c = args.out[0].data, .alpha = attrs.alpha});
}

void linear_cuda(const KernelArgs& args) {
  const Activation kind = args.attr<LinearAttrs>().activation;
  const Shape& x = args.in[0].shape;
  const Shape& w = args.in[1].shape;
  // The activation's input is an output too: the product is written there.
  const TensorRef& z = kind == Activation::none ? args.out[0] : args.out[1];
  if (z.numel() == 0) {
    return;
  }
  const bool biased = args.in.size() > 2 && args.in[2].data != nullptr;
  const bool fused = biased && z.dtype != DType::f64 && w[1] > 0;
  if (w[1] == 0) {
    zero(args, z);
  } else {
    product(args,
            {.dtype = z.dtype,
             .transpose_b = true,
             .biased = fused,
             .m = x.product(0, x.rank() - 1),
             .n = w[0],
             .k = w[1],
             .lda = w[1],
             .ldb = w[1],
             .ldc = w[0]},
            {.a = args.in[0].data,
             .b = args.in[1].data,
             .bias = fused ? args.in[2].data : nullptr,
             .c = z.data});
  }
  if (biased && !fused) {
    add_bias(args, z);
  }
  if (kind == Activation::none) {
    return;
  }
  dispatch_floating(z.dtype, args.op, [&]<typename T>() {
    dispatch_activation(kind, [&]<Activation kKind>() {
      map(args, z.numel(), Activate<kKind, T>{}, args.out[0].as<T>(), z.as<T>());
    });
  });
}

void bias_grad_cuda(const KernelArgs& args) {
  const Shape& shape = args.in[0].shape;
  const int64_t columns = shape.back();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* dy = args.in[0].as<T>();
    const auto term = [=]<int kVector>() { return BiasTerm<kVector, T>{dy, columns}; };
    column_sum<1, T>(args, shape.product(0, shape.rank() - 1), columns, term, args.out[0].as<T>(),
                     static_cast<T*>(nullptr));
  });
}

}  // namespace lithe
