#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_walk.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/layout.h"

namespace lithe {
namespace {

using namespace device;

// Moving data needs an element's size only.
template <typename F>
void dispatch_size(const TensorRef& x, F&& f) {
  switch (dtype_bits(x.dtype)) {
    case 8:
      return f.template operator()<uint8_t>();
    case 16:
      return f.template operator()<uint16_t>();
    case 32:
      return f.template operator()<uint32_t>();
    default:
      return f.template operator()<uint64_t>();
  }
}

template <typename E>
struct Same {
  __device__ E operator()(E x) const { return x; }
};

constexpr int kTile = 32;
constexpr int kTileRows = 8;

// Transposes tiles of x [rows by stride_x, columns contiguous] into y [columns by stride_y, rows
// contiguous], for each position of `outer` (operands: x, y).
template <typename E>
__global__ void __launch_bounds__(kTile* kTileRows)
    transpose_tiles_kernel(const Strided<2> outer, int64_t rows, int64_t columns, int64_t tiles_r,
                           int64_t tiles_c, const E* x, int64_t stride_x, E* y, int64_t stride_y) {
  __shared__ E tile[kTile][kTile + 1];  // the extra column spreads a tile column over the banks
  int64_t item = blockIdx.x;
  const int64_t r0 = item % tiles_r * kTile;
  item /= tiles_r;
  const int64_t c0 = item % tiles_c * kTile;
  item /= tiles_c;
  int64_t at[2];
  offsets_at<1>(outer, static_cast<uint64_t>(item), at);
  for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) {
    const int64_t r = r0 + i;
    const int64_t c = c0 + threadIdx.x;
    if (r < rows && c < columns) {
      tile[i][threadIdx.x] = x[at[0] + r * stride_x + c];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) {
    const int64_t c = c0 + i;
    const int64_t r = r0 + threadIdx.x;
    if (r < rows && c < columns) {
      y[at[1] + c * stride_y + r] = tile[threadIdx.x][i];
    }
  }
}

// Dimension `across` of the walk over y's order is contiguous in x, the last one in y.
template <typename E>
void transpose_tiles(const KernelArgs& args, const Strided<1>& walk, int across, const E* x, E* y) {
  const int last = walk.rank - 1;
  Strided<2> outer;  // operands: x, y
  std::array<int64_t, Shape::kMaxRank> stride_y{};
  int64_t step = 1;
  for (int d = last; d >= 0; --d) {
    stride_y[static_cast<size_t>(d)] = step;
    step *= walk.size[static_cast<size_t>(d)];
  }
  for (int d = 0; d < last; ++d) {
    if (d != across) {
      const auto i = static_cast<size_t>(d);
      outer.push(walk.size[i], {walk.stride[i][0], stride_y[i]});
    }
  }
  outer.finish();
  const int64_t columns = walk.size[static_cast<size_t>(across)];
  const int64_t rows = walk.inner();
  const int64_t tiles_c = (columns + kTile - 1) / kTile;
  const int64_t tiles_r = (rows + kTile - 1) / kTile;
  const unsigned blocks = blocks_for(outer.numel() * tiles_c * tiles_r, 1);
  transpose_tiles_kernel<<<blocks, dim3(kTile, kTileRows), 0, stream_of(args)>>>(
      outer, rows, columns, tiles_r, tiles_c, x, walk.inner_stride()[0], y,
      stride_y[static_cast<size_t>(across)]);
  check_launch(args.op);
}

// ---- copies of blocks: rows of whole units, of 1 to 16 bytes

struct alignas(16) Unit16 {
  uint64_t low, high;
};

// Where rows lie: `width` units every `stride_x` in x and every `stride_y` in y.
struct Blocks {
  const std::byte* x = nullptr;
  std::byte* y = nullptr;
  int64_t stride_x = 0;
  int64_t stride_y = 0;
  int64_t width = 0;
  int64_t rows = 0;
};

template <typename U>
__global__ void __launch_bounds__(256) copy_blocks_kernel(const Blocks b) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < b.rows * b.width) {
    const int64_t row = i / b.width;
    const int64_t column = i - row * b.width;
    reinterpret_cast<U*>(b.y)[row * b.stride_y + column] =
        reinterpret_cast<const U*>(b.x)[row * b.stride_x + column];
  }
}

// y's rows are `begin` zeros, a row of x, and zeros up to stride_y.
template <typename U>
__global__ void __launch_bounds__(256) pad_blocks_kernel(const Blocks b, int64_t begin) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < b.rows * b.stride_y) {
    const int64_t row = i / b.stride_y;
    const int64_t column = i - row * b.stride_y - begin;
    const bool inside = column >= 0 && column < b.width;
    reinterpret_cast<U*>(b.y)[i] =
        inside ? reinterpret_cast<const U*>(b.x)[row * b.stride_x + column] : U{};
  }
}

// Calls f.operator()<U>() with the widest unit that divides all of `bytes`.
template <typename F>
void dispatch_unit(int64_t bytes, F&& f) {
  if (bytes % 16 == 0) {
    f.template operator()<Unit16>();
  } else if (bytes % 8 == 0) {
    f.template operator()<uint64_t>();
  } else if (bytes % 4 == 0) {
    f.template operator()<uint32_t>();
  } else if (bytes % 2 == 0) {
    f.template operator()<uint16_t>();
  } else {
    f.template operator()<uint8_t>();
  }
}

// In bytes; the pointers count too.
int64_t common_alignment(const Blocks& b) {
  const auto x = static_cast<int64_t>(reinterpret_cast<uintptr_t>(b.x) % 16);
  const auto y = static_cast<int64_t>(reinterpret_cast<uintptr_t>(b.y) % 16);
  return x | y | b.stride_x | b.stride_y | b.width;
}

template <typename U>
Blocks in_units(Blocks b) {
  constexpr auto kUnit = static_cast<int64_t>(sizeof(U));
  b.stride_x /= kUnit;
  b.stride_y /= kUnit;
  b.width /= kUnit;
  return b;
}

void copy_blocks(const KernelArgs& args, const Blocks& b) {
  if (b.rows * b.width == 0) {
    return;
  }
  dispatch_unit(common_alignment(b), [&]<typename U>() {
    const Blocks units = in_units<U>(b);
    copy_blocks_kernel<U>
        <<<blocks_for(units.rows * units.width, 256), 256, 0, stream_of(args)>>>(units);
    check_launch(args.op);
  });
}

// Bytes of one step along an axis, and the number of blocks that end with it: x is [outer, axis,
// inner].
struct AxisSplit {
  int64_t outer = 1;
  int64_t inner = 1;
};
AxisSplit split_at(const TensorRef& x, int axis) {
  return {x.shape.product(0, axis),
          x.shape.product(axis + 1, x.shape.rank()) * (dtype_bits(x.dtype) / 8)};
}

}  // namespace

void reshape_cuda(const KernelArgs& /*args*/) {}  // the output is the input's memory

void transpose_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<TransposeAttrs>();
  const TensorRef& x = args.in[0];
  const TensorRef& y = args.out[0];
  if (y.numel() == 0) {
    return;
  }
  const auto strides = row_major_strides(x.shape);
  Strided<1> walk;
  for (int d = 0; d < attrs.rank; ++d) {
    const auto from = static_cast<size_t>(attrs.order[static_cast<size_t>(d)]);
    walk.push(y.shape[d], {strides[from]});
  }
  walk.finish();
  int across = walk.rank - 1;
  while (walk.stride[static_cast<size_t>(across)][0] != 1) {
    --across;  // every walk over all of x has a dimension of stride 1
  }
  dispatch_size(x, [&]<typename E>() {
    if (across == walk.rank - 1) {
      map_walk(args, walk, Same<E>{}, y.as<E>(), x.as<E>());
    } else {
      transpose_tiles(args, walk, across, x.as<E>(), y.as<E>());
    }
  });
}

void slice_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<SliceAttrs>();
  const TensorRef& x = args.in[0];
  const AxisSplit s = split_at(x, attrs.axis);
  const int64_t bytes = (attrs.end - attrs.begin) * s.inner;
  copy_blocks(args, {.x = x.as<std::byte>() + attrs.begin * s.inner,
                     .y = args.out[0].as<std::byte>(),
                     .stride_x = x.shape[attrs.axis] * s.inner,
                     .stride_y = bytes,
                     .width = bytes,
                     .rows = s.outer});
}

void slice_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<SliceAttrs>();
  const AxisSplit s = split_at(args.out[0], attrs.axis);
  const int64_t bytes = (attrs.end - attrs.begin) * s.inner;
  const int64_t begin = attrs.begin * s.inner;
  const Blocks b{.x = args.in[0].as<std::byte>(),
                 .y = args.out[0].as<std::byte>(),
                 .stride_x = bytes,
                 .stride_y = attrs.full * s.inner,
                 .width = bytes,
                 .rows = s.outer};
  if (b.rows * b.stride_y == 0) {
    return;
  }
  dispatch_unit(common_alignment(b) | begin, [&]<typename U>() {
    const Blocks units = in_units<U>(b);
    pad_blocks_kernel<U><<<blocks_for(units.rows * units.stride_y, 256), 256, 0, stream_of(args)>>>(
        units, begin / static_cast<int64_t>(sizeof(U)));
    check_launch(args.op);
  });
}

void concat_cuda(const KernelArgs& args) {
  const int axis = args.attr<ConcatAttrs>().axis;
  const TensorRef& y = args.out[0];
  const int64_t stride = y.shape[axis] * split_at(y, axis).inner;
  int64_t at = 0;
  for (const TensorRef& x : args.in) {
    const AxisSplit s = split_at(x, axis);
    const int64_t bytes = x.shape[axis] * s.inner;
    copy_blocks(args, {.x = x.as<std::byte>(),
                       .y = y.as<std::byte>() + at,
                       .stride_x = bytes,
                       .stride_y = stride,
                       .width = bytes,
                       .rows = s.outer});
    at += bytes;
  }
}

}  // namespace lithe
