#include "tensor/core/tensor.h"
#include "tensor/graph/graph.h"
#include "tensor/ops/cuda_chunk_join.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/narrow_product_cuda.h"
#include "tensor/ops/product_call_cuda.h"

namespace lithe {
namespace {

using namespace device;

// ---- sums over the rows

// Up to 4 matrices [rows, columns], `stride` elements apart, side by side.
template <int kVector, typename T>
struct BiasTerm {
  const T* dy;
  int64_t columns;
  int64_t stride;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[1][kVector]) const {
    // Compared, not divided: the compiler takes this out of the loop over the rows.
    static_assert(InferContext::kMaxOutputs / 2 == 4);
    const int64_t layer = (column >= columns) + (column >= 2 * columns) + (column >= 3 * columns);
    const Pack<T, kVector> d =
        load<kVector>(dy + layer * (stride - columns) + column + row * columns);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sums[0][j] += widen<acc_t<T>>(d.at[j]);
    }
  }
};

template <typename T>
struct BiasOut {
  T* db;
  int64_t columns;
  int64_t stride;
  __device__ void operator()(int64_t column, acc_t<T> total) const {
    db[column / columns * stride + column % columns] = narrow<T>(total);
  }
};

// Each to [columns] = sum over the rows of its from [..., columns]; both lie at one distance.
void sum_rows(const KernelArgs& args, std::span<const TensorRef> from,
              std::span<const TensorRef> to) {
  const auto count = static_cast<int64_t>(from.size());
  const Shape& shape = from[0].shape;
  const int64_t columns = shape.back();
  const int64_t rows = shape.product(0, shape.rank() - 1);
  if (columns == 0) {
    return;
  }
  dispatch_floating(from[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const int64_t stride = count > 1 ? distance_of(from) : 0;
    const int64_t width = count * columns;
    const int64_t room = args.workspace_bytes / (width * static_cast<int64_t>(sizeof(A)));
    const int64_t chunks = std::min({room, kMostChunks, std::max<int64_t>(rows / 64, 1)});
    if (chunks == 0) {
      for (size_t i = 0; i < from.size(); ++i) {
        const T* dy = from[i].as<T>();
        const auto term = [=]<int kVector>() { return BiasTerm<kVector, T>{dy, columns, 0}; };
        column_sum<1, T>(args, rows, columns, term, to[i].as<T>(), static_cast<T*>(nullptr));
      }
      return;
    }
    A* partial = static_cast<A*>(args.workspace);
    const auto launch = [&]<int kVector>() {
      const dim3 grid(blocks_for(width, kColumnLanes * kVector), static_cast<unsigned>(chunks));
      column_sum_kernel<kVector, 1, A>
          <<<grid, dim3(kColumnLanes, kColumnSlices), 0, stream_of(args)>>>(
              rows, width, BiasTerm<kVector, T>{from[0].as<T>(), columns, stride}, partial);
    };
    if (columns % kWide<T> == 0 && stride % kWide<T> == 0) {
      launch.template operator()<kWide<T>>();
    } else {
      launch.template operator()<1>();
    }
    check_launch(args.op);
    join_chunks(args, chunks, width, partial,
                BiasOut<T>{to[0].as<T>(), columns, count > 1 ? distance_of(to) : 0});
  });
}

// ---- one layer

// Without db where nobody wants it.
bool sums_bias(const KernelArgs& args) { return args.out.size() > 1; }

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
          .row_sum = sums_bias(args) ? args.out[1].data : nullptr,
          .c = args.out[0].data};
}

// The bias's gradient as a pass of its own, first: it leaves a small dy in the cache.
void linear_dw_apart(const KernelArgs& args) {
  if (sums_bias(args)) {
    sum_rows(args, args.in.first(1), args.out.subspan(1, 1));
  }
  const blas_cuda::Gemm g = dw_shape(args, blas_cuda::Epilogue::none);
  if (!is_empty(g)) {
    blas_cuda::gemm(g, dw_operands(args), launch_of(args));
  } else if (args.out[0].numel() > 0) {
    zero(args, args.out[0]);
  }
}

// ---- several layers of one input

// All layers as one batch; of none where it cannot be.
blas_cuda::Gemm stack_dw_shape(const KernelArgs& args, blas_cuda::Epilogue epilogue) {
  const auto count = args.in.size() - 1;
  blas_cuda::Gemm g = dw_shape(StackedLinearDw(args, 0).args(), epilogue);
  g.batch = 0;
  if (count < 2 || narrow_product::fits(g.m, g.n)) {
    return g;
  }
  g.stride_a = distance_of(args.in.first(count));
  g.stride_c = distance_of(args.out.first(count));
  const bool biased = args.out.size() > count;
  const int64_t stride_bias = biased ? distance_of(args.out.subspan(count)) : 0;
  if (g.stride_a == 0 || g.stride_c == 0 || (biased && stride_bias == 0)) {
    return g;
  }
  g.stride_bias = epilogue == blas_cuda::Epilogue::row_sum ? stride_bias : 0;
  g.optional = epilogue == blas_cuda::Epilogue::none;
  g.batch = static_cast<int64_t>(count);
  return g;
}

// All products at once and all sums at once, or else layer by layer.
void linear_stack_dw_apart(const KernelArgs& args) {
  const size_t count = args.in.size() - 1;
  const StackedLinearDw first(args, 0);
  const blas_cuda::Gemm g = stack_dw_shape(args, blas_cuda::Epilogue::none);
  if (!is_empty(g) && blas_cuda::gemm(g, dw_operands(first.args()), launch_of(args))) {
    if (args.out.size() > count) {
      sum_rows(args, args.in.first(count), args.out.subspan(count));
    }
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    linear_dw_cuda(StackedLinearDw(args, i).args());
  }
}

}  // namespace

void bias_grad_cuda(const KernelArgs& args) { sum_rows(args, args.in, args.out); }

void linear_dw_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = dw_shape(args, blas_cuda::Epilogue::row_sum);
  if (narrow_product::fits(g.m, g.n)) {
    const blas_cuda::Operands x = dw_operands(args);
    narrow_product::dw(args, {g.dtype, g.k, g.m, g.n, x.a, x.b, x.c, x.row_sum});
  } else if (is_empty(g) || !sums_bias(args) ||
             !blas_cuda::gemm(g, dw_operands(args), launch_of(args))) {
    linear_dw_apart(args);
  }
}

void prepare_linear_dw_cuda(const KernelArgs& args) {
  const blas_cuda::Gemm g = dw_shape(args, blas_cuda::Epilogue::row_sum);
  if (is_empty(g) || narrow_product::fits(g.m, g.n)) {
    return;
  }
  blas_cuda::prepare(dw_shape(args, blas_cuda::Epilogue::none), dw_operands(args), launch_of(args));
  if (sums_bias(args)) {
    blas_cuda::prepare(g, dw_operands(args), launch_of(args), [&] { linear_dw_apart(args); });
  }
}

void linear_stack_dw_cuda(const KernelArgs& args) {
  const StackedLinearDw first(args, 0);
  const blas_cuda::Gemm g = stack_dw_shape(args, blas_cuda::Epilogue::row_sum);
  if (is_empty(g) || !sums_bias(first.args()) ||
      !blas_cuda::gemm(g, dw_operands(first.args()), launch_of(args))) {
    linear_stack_dw_apart(args);
  }
}

void prepare_linear_stack_dw_cuda(const KernelArgs& args) {
  const StackedLinearDw first(args, 0);
  prepare_linear_dw_cuda(first.args());
  const blas_cuda::Gemm g = stack_dw_shape(args, blas_cuda::Epilogue::none);
  if (is_empty(g)) {
    return;
  }
  const blas_cuda::Operands operands = dw_operands(first.args());
  // Without the sums, which have a pass of their own either way.
  blas_cuda::prepare(g, operands, launch_of(args), [&] {
    for (size_t i = 0; i + 1 < args.in.size(); ++i) {
      const StackedLinearDw layer(args, i);
      blas_cuda::gemm(dw_shape(layer.args(), blas_cuda::Epilogue::none), dw_operands(layer.args()),
                      launch_of(args));
    }
  });
  if (sums_bias(first.args())) {
    blas_cuda::prepare(stack_dw_shape(args, blas_cuda::Epilogue::row_sum), operands,
                       launch_of(args), [&] { linear_stack_dw_apart(args); });
  }
}

}  // namespace lithe
