#include <numeric>

#include "tensor/core/tensor.h"
#include "tensor/graph/graph.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/product_call_cuda.h"

namespace lithe {
namespace {

using namespace device;

// Whether the tensors lie one behind the other, as one.
bool is_one(std::span<const TensorRef> tensors) {
  return tensors.size() == 1 || distance_of(tensors) == tensors[0].numel();
}

// The columns of dy [rows, width] that belong to layers from `first` on, and their alignment.
struct Columns {
  Columns(const TensorRef& dy, int64_t first, int64_t out)
      : data(static_cast<const std::byte*>(dy.data) + byte_size(dy.dtype, {first * out})),
        alignment(std::gcd(byte_size(dy.dtype, {first * out}), blas_cuda::kAlignment)) {}
  const void* data;
  int64_t alignment;
};

// ---- dx

const TensorRef& addend_of(const KernelArgs& args) { return args.in[1]; }

// dx of `layers` neighbours at once, from layer `first` on.
blas_cuda::Gemm dx_shape(const KernelArgs& args, int64_t first, int64_t layers) {
  const TensorRef& dy = args.in[0];
  const Shape& w = args.in[2].shape;
  return {.dtype = dy.dtype,
          .adds = first > 0 || addend_of(args).data != nullptr,
          .numerics = numerics_of(args),
          .m = dy.shape.product(0, dy.shape.rank() - 1),
          .n = w[1],
          .k = layers * w[0],
          .lda = dy.shape.back(),
          .ldb = w[1],
          .ldc = w[1],
          .alignment_a = Columns(dy, first, w[0]).alignment};
}

blas_cuda::Operands dx_operands(const KernelArgs& args, int64_t first) {
  const TensorRef& weight = args.in[static_cast<size_t>(2 + first)];
  return {.a = Columns(args.in[0], first, weight.shape[0]).data,
          .b = weight.data,
          .addend = first > 0 ? args.out[0].data : addend_of(args).data,
          .c = args.out[0].data};
}

// Calls product(shape, operands) for each product that dx takes.
template <typename Product>
void each_dx(const KernelArgs& args, Product&& product) {
  const int64_t count = args.attr<LinearPackedDxAttrs>().count;
  if (is_one(args.in.subspan(2))) {
    product(dx_shape(args, 0, count), dx_operands(args, 0));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    product(dx_shape(args, i, 1), dx_operands(args, i));
  }
}

// ---- dW

// Neighbouring layers whose dWs lie one behind the other.
struct Run {
  int64_t first = 0;
  std::span<const TensorRef> dws;
};

blas_cuda::Gemm dw_shape(const KernelArgs& args, const Run& run) {
  const TensorRef& dy = args.in[0];
  const Shape& dw = run.dws[0].shape;
  return {.dtype = dy.dtype,
          .transpose_a = true,
          .numerics = numerics_of(args),
          .m = static_cast<int64_t>(run.dws.size()) * dw[0],
          .n = dw[1],
          .k = dy.shape.product(0, dy.shape.rank() - 1),
          .lda = dy.shape.back(),
          .ldb = dw[1],
          .ldc = dw[1],
          .alignment_a = Columns(dy, run.first, dw[0]).alignment};
}

blas_cuda::Operands dw_operands(const KernelArgs& args, const Run& run) {
  return {.a = Columns(args.in[0], run.first, run.dws[0].shape[0]).data,
          .b = args.in[1].data,
          .c = run.dws[0].data};
}

template <typename Product>
void each_run(const KernelArgs& args, Product&& product) {
  const auto attrs = args.attr<LinearPackedDwAttrs>();
  size_t output = 0;
  for (int i = 0; i < attrs.count; ++i) {
    if (!attrs.wants(i)) {
      continue;
    }
    Run run{i, args.out.subspan(output++, 1)};
    while (i + 1 < attrs.count && attrs.wants(i + 1)) {
      const auto longer = args.out.subspan(output - run.dws.size(), run.dws.size() + 1);
      if (!is_one(longer)) {
        break;
      }
      run.dws = longer;
      ++output;
      ++i;
    }
    product(run);
  }
}

}  // namespace

void linear_packed_dx_cuda(const KernelArgs& args) {
  const TensorRef& dx = args.out[0];
  const void* addend = addend_of(args).data;
  if (!is_empty(dx_shape(args, 0, 1))) {
    each_dx(args, [&](const blas_cuda::Gemm& g, const blas_cuda::Operands& x) {
      blas_cuda::gemm(g, x, launch_of(args));
    });
  } else if (dx.numel() > 0 && addend == nullptr) {
    zero(args, dx);
  } else if (dx.numel() > 0 && addend != dx.data) {
    cuda_check(cudaMemcpyAsync(dx.data, addend, static_cast<size_t>(dx.bytes()),
                               cudaMemcpyDeviceToDevice, stream_of(args)),
               args.op, "copying the addend");
  }
}

void prepare_linear_packed_dx_cuda(const KernelArgs& args) {
  if (is_empty(dx_shape(args, 0, 1))) {
    return;
  }
  each_dx(args, [&](const blas_cuda::Gemm& g, const blas_cuda::Operands& x) {
    blas_cuda::prepare(g, x, launch_of(args));
  });
}

void linear_packed_dw_cuda(const KernelArgs& args) {
  each_run(args, [&](const Run& run) {
    const blas_cuda::Gemm g = dw_shape(args, run);
    if (!is_empty(g)) {
      blas_cuda::gemm(g, dw_operands(args, run), launch_of(args));
      return;
    }
    for (const TensorRef& dw : run.dws) {
      if (dw.numel() > 0) {
        zero(args, dw);
      }
    }
  });
}

void prepare_linear_packed_dw_cuda(const KernelArgs& args) {
  each_run(args, [&](const Run& run) {
    const blas_cuda::Gemm g = dw_shape(args, run);
    if (!is_empty(g)) {
      blas_cuda::prepare(g, dw_operands(args, run), launch_of(args));
    }
  });
}

}  // namespace lithe
