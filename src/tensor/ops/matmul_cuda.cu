#include "tensor/core/tensor.h"
#include "tensor/ops/blas_cuda.h"
#include "tensor/ops/cuda_activation.h"
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

blas_cuda::Launch launch_of(const KernelArgs& args) {
  return {args.workspace, args.workspace_bytes, stream_of(args), args.op};
}

// TF32 changes products of fp32 only: others have one plan, whatever it says.
Numerics numerics_of(const KernelArgs& args) {
  const bool tf32 = args.numerics.tf32 && args.out[0].dtype == DType::f32;
  return {tf32, args.numerics.deterministic};
}

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

// db [columns] = sum over the rows of dy [..., columns].
void sum_rows(const KernelArgs& args, const TensorRef& from, const TensorRef& to) {
  const int64_t columns = from.shape.back();
  dispatch_floating(from.dtype, args.op, [&]<typename T>() {
    const T* dy = from.as<T>();
    const auto term = [=]<int kVector>() { return BiasTerm<kVector, T>{dy, columns}; };
    column_sum<1, T>(args, from.shape.product(0, from.shape.rank() - 1), columns, term, to.as<T>(),
                     static_cast<T*>(nullptr));
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

bool is_empty(const blas_cuda::Gemm& g) { return g.m == 0 || g.n == 0 || g.k == 0 || g.batch == 0; }

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

// The distance between neighbours in elements; 0 where it is not one, or they overlap.
int64_t distance_of(std::span<const TensorRef> tensors) {
  const auto address = [&](size_t i) { return reinterpret_cast<intptr_t>(tensors[i].data); };
  const int64_t bytes = address(1) - address(0);
  for (size_t i = 1; i < tensors.size(); ++i) {
    if (address(i) - address(i - 1) != bytes) {
      return 0;
    }
  }
  const int64_t size = byte_size(tensors[0].dtype, {1});
  return bytes >= tensors[0].bytes() && bytes % size == 0 ? bytes / size : 0;
}

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
  }
  return g;
}

void linear_stack_apart(const KernelArgs& args) {
  for (size_t i = 0; i < args.out.size(); ++i) {
    linear_cuda(StackedLinear(args, i).args());
  }
}

// ---- gradients of a linear layer's parameters

blas_cuda::Gemm dw_shape(const KernelArgs& args, blas_cuda::Epilogue epilogue) {
  const Shape& dy = args.in[0].shape;
  const Shape& dw = args.out[0].shape;
  return {.dtype = args.out[0].dtype,
          .transpose_a = true,
          .epilogue = epilogue,
          .numerics = numerics_of(args),
          .m = dw[0],
          .n = dw[1],
          .k = dy.product(0, dy.rank() - 1),
          .lda = dw[0],
          .ldb = dw[1],
          .ldc = dw[1]};
}

blas_cuda::Operands dw_operands(const KernelArgs& args) {
  return {.a = args.in[0].data,
          .b = args.in[1].data,
          .row_sum = args.out[1].data,
          .c = args.out[0].data};
}

// The bias's gradient as a pass of its own, first: it leaves a small dy in the cache.
void linear_dw_apart(const KernelArgs& args) {
  sum_rows(args, args.in[0], args.out[1]);
  const blas_cuda::Gemm g = dw_shape(args, blas_cuda::Epilogue::none);
  if (!is_empty(g)) {
    blas_cuda::gemm(g, dw_operands(args), launch_of(args));
  } else if (args.out[0].numel() > 0) {
    zero(args, args.out[0]);
  }
}

}  // namespace

void matmul_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = matmul_shape(args);
  const TensorRef& c = args.out[0];
  if (!is_empty(g)) {
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
  if (const blas_cuda::Gemm g = matmul_shape(args); !is_empty(g)) {
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

void bias_grad_cuda(const KernelArgs& args) { sum_rows(args, args.in[0], args.out[0]); }

void linear_dw_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = dw_shape(args, blas_cuda::Epilogue::row_sum);
  if (is_empty(g) || !blas_cuda::gemm(g, dw_operands(args), launch_of(args))) {
    linear_dw_apart(args);
  }
}

void prepare_linear_dw_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = dw_shape(args, blas_cuda::Epilogue::row_sum);
  if (is_empty(g)) {
    return;
  }
  blas_cuda::prepare(dw_shape(args, blas_cuda::Epilogue::none), dw_operands(args), launch_of(args));
  blas_cuda::prepare(g, dw_operands(args), launch_of(args), [&] { linear_dw_apart(args); });
}

}  // namespace lithe
