#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_activation.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/narrow_product_cuda.h"
#include "tensor/ops/product_call_cuda.h"

namespace lithe {
namespace {

using namespace device;

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

// ---- matmul

const void* addend_of(const KernelArgs& args) {
  return args.in.size() > 2 ? args.in[2].data : nullptr;
}

blas_cuda::Gemm matmul_shape(const KernelArgs& args) {
  const auto attrs = args.attr<MatmulAttrs>();
  const Shape& a = args.in[0].shape;
  const Shape& b = args.in[1].shape;
  const Shape& c = args.out[0].shape;
  blas_cuda::Gemm g{.dtype = args.out[0].dtype,
                    .transpose_a = attrs.transpose_a,
                    .transpose_b = attrs.transpose_b,
                    .adds = addend_of(args) != nullptr,
                    .numerics = numerics_of(args),
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
  if (b.rank() == 2 && !attrs.transpose_a) {
    g.m *= g.batch;  // all batches share b: one tall product
    g.batch = 1;
  }
  if (g.batch == 1) {
    g.stride_a = g.stride_b = g.stride_c = 0;  // one plan, whatever the rank
  }
  return g;
}

blas_cuda::Operands matmul_operands(const KernelArgs& args) {
  return {.a = args.in[0].data,
          .b = args.in[1].data,
          .addend = addend_of(args),
          .c = args.out[0].data,
          .alpha = args.attr<MatmulAttrs>().alpha};
}

// The products around a layer of few outputs.
bool is_narrow_dw(const blas_cuda::Gemm& g) {
  return g.transpose_a && !g.transpose_b && !g.adds && g.batch == 1 &&
         narrow_product::fits(g.m, g.n);
}
bool is_narrow_outer(const blas_cuda::Gemm& g) {
  return !g.transpose_a && !g.transpose_b && !g.adds && g.batch == 1 &&
         narrow_product::fits(g.k, g.n);
}

// ---- linear

bool is_biased(const KernelArgs& args) { return args.in.size() > 2 && args.in[2].data != nullptr; }

// The activation's input is an output too: the product is written there.
const TensorRef& linear_result(const KernelArgs& args) {
  return args.attr<LinearAttrs>().activation == Activation::none ? args.out[0] : args.out[1];
}

blas_cuda::Gemm linear_shape(const KernelArgs& args, blas_cuda::Epilogue epilogue) {
  const Shape& x = args.in[0].shape;
  const Shape& w = args.in[1].shape;
  return {.dtype = args.out[0].dtype,
          .transpose_b = true,
          .epilogue = epilogue,
          .numerics = numerics_of(args),
          .m = x.product(0, x.rank() - 1),
          .n = w[0],
          .k = w[1],
          .lda = w[1],
          .ldb = w[1],
          .ldc = w[0]};
}

// The product, with its bias where the library adds it.
blas_cuda::Gemm linear_product(const KernelArgs& args) {
  const bool fused = is_biased(args) && args.out[0].dtype != DType::f64;
  return linear_shape(args, fused ? blas_cuda::Epilogue::bias : blas_cuda::Epilogue::none);
}

blas_cuda::Operands linear_operands(const KernelArgs& args) {
  return {.a = args.in[0].data,
          .b = args.in[1].data,
          .bias = is_biased(args) ? args.in[2].data : nullptr,
          .c = linear_result(args).data};
}

// The library's GELU is the tanh form; gelu itself, with erf, stays a pass of its own.
bool may_fuse_gelu(const KernelArgs& args) {
  return args.attr<LinearAttrs>().activation == Activation::gelu_tanh && is_biased(args);
}

blas_cuda::Operands gelu_operands(const KernelArgs& args) {
  blas_cuda::Operands x = linear_operands(args);
  x.pre_activation = args.out[1].data;
  x.c = args.out[0].data;
  return x;
}

// The activation as a pass of its own.
void linear_apart(const KernelArgs& args) {
  const TensorRef& z = linear_result(args);
  const blas_cuda::Gemm g = linear_product(args);
  if (g.k == 0) {
    zero(args, z);
  } else {
    blas_cuda::gemm(g, linear_operands(args), launch_of(args));
  }
  if (is_biased(args) && (g.k == 0 || g.epilogue == blas_cuda::Epilogue::none)) {
    add_bias(args, z);
  }
  const Activation kind = args.attr<LinearAttrs>().activation;
  if (kind == Activation::none) {
    return;
  }
  dispatch_floating(z.dtype, args.op, [&]<typename T>() {
    dispatch_activation(kind, [&]<Activation kKind>() {
      map(args, z.numel(), Activate<kKind, T>{}, args.out[0].as<T>(), z.as<T>());
    });
  });
}

// ---- several linear layers of one input

// All layers as one batch; of none where it cannot be.
blas_cuda::Gemm stack_shape(const KernelArgs& args) {
  const size_t count = args.out.size();
  const bool biased = args.in.size() > 1 + count;
  blas_cuda::Gemm g = linear_product(StackedLinear(args, 0).args());
  g.batch = 0;
  const bool one_pass = !biased || g.epilogue == blas_cuda::Epilogue::bias;
  if (count < 2 || !one_pass) {
    return g;
  }
  g.stride_b = distance_of(args.in.subspan(1, count));
  g.stride_c = distance_of(args.out);
  g.stride_bias = biased ? distance_of(args.in.subspan(1 + count, count)) : 0;
  if (g.stride_b > 0 && g.stride_c > 0 && (!biased || g.stride_bias > 0)) {
    g.batch = static_cast<int64_t>(count);
    g.optional = !biased;
  }
  return g;
}

void linear_stack_apart(const KernelArgs& args) {
  for (size_t i = 0; i < args.out.size(); ++i) {
    linear_cuda(StackedLinear(args, i).args());
  }
}

}  // namespace

void matmul_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = matmul_shape(args);
  const TensorRef& c = args.out[0];
  if (is_narrow_dw(g)) {
    narrow_product::dw(args, {g.dtype, g.k, g.m, g.n, args.in[0].data, args.in[1].data, c.data,
                              nullptr, args.attr<MatmulAttrs>().alpha});
  } else if (is_narrow_outer(g)) {
    narrow_product::outer(args, {g.dtype, g.m, g.k, g.n, args.in[0].data, args.in[1].data, c.data,
                                 args.attr<MatmulAttrs>().alpha});
  } else if (!is_empty(g)) {
    blas_cuda::gemm(g, matmul_operands(args), launch_of(args));
  } else if (c.numel() > 0 && !g.adds) {
    zero(args, c);
  } else if (c.numel() > 0 && addend_of(args) != c.data) {
    cuda_check(cudaMemcpyAsync(c.data, addend_of(args), static_cast<size_t>(c.bytes()),
                               cudaMemcpyDeviceToDevice, stream_of(args)),
               args.op, "copying the addend");
  }
}

void prepare_matmul_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = matmul_shape(args);
  if (!is_empty(g) && !is_narrow_dw(g) && !is_narrow_outer(g)) {
    blas_cuda::prepare(g, matmul_operands(args), launch_of(args));
  }
}

void linear_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = linear_shape(args, blas_cuda::Epilogue::gelu_bias);
  if (g.m == 0 || g.n == 0) {
    return;
  }
  if (g.k == 0 || !may_fuse_gelu(args) ||
      !blas_cuda::gemm(g, gelu_operands(args), launch_of(args))) {
    linear_apart(args);
  }
}

void prepare_linear_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = linear_shape(args, blas_cuda::Epilogue::gelu_bias);
  if (is_empty(g)) {
    return;
  }
  blas_cuda::prepare(linear_product(args), linear_operands(args), launch_of(args));
  if (may_fuse_gelu(args)) {
    blas_cuda::prepare(g, gelu_operands(args), launch_of(args), [&] { linear_apart(args); });
  }
}

void linear_stack_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = stack_shape(args);
  const StackedLinear first(args, 0);
  if (is_empty(g) || !blas_cuda::gemm(g, linear_operands(first.args()), launch_of(args))) {
    linear_stack_apart(args);
  }
}

void prepare_linear_stack_cuda(const KernelArgs& args) {
  const StackedLinear first(args, 0);
  prepare_linear_cuda(first.args());
  if (const blas_cuda::Gemm g = stack_shape(args); !is_empty(g)) {
    blas_cuda::prepare(g, linear_operands(first.args()), launch_of(args),
                       [&] { linear_stack_apart(args); });
  }
}

}  // namespace lithe
