// Convolution as products of tiles, gathered while they are multiplied (implicit GEMM). Plain
// arithmetic in fp32 (fp64 for fp64) with sums in a fixed order: for what cuDNN does not compute.
#include "tensor/core/tensor.h"
#include "tensor/ops/conv_cuda.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kTile = 64;   // rows and columns of a block's product
constexpr int kDepth = 16;  // of the summed dimension at a time
constexpr int kThreads = 256;
constexpr int kOwn = 4;  // rows and columns of a thread

// An operand is a matrix [outer, inner] whose inner dimension is summed. An element's address needs
// its place along each; a thread finds those once for the elements that it loads in a row.
// kInnerFast says along which dimension neighbouring elements lie in memory.

// x as [positions, patch] of one group: rows of patches.
template <typename T, bool kPatchIsInner>
struct PatchOperand {
  static constexpr bool kInnerFast = kPatchIsInner;
  struct Window {
    int64_t image, top, left;
  };
  struct Tap {
    int64_t y, x, channel;
  };
  using Outer = std::conditional_t<kPatchIsInner, Window, Tap>;
  using Inner = std::conditional_t<kPatchIsInner, Tap, Window>;

  const ConvGeometry& g;
  const T* x;
  int64_t group;

  __device__ Window window(int64_t position) const {
    const int64_t line = position / g.out_width;
    const int64_t image = line / g.out_height;
    return {image, (line - image * g.out_height) * g.attrs.stride_h - g.attrs.pad_h,
            (position - line * g.out_width) * g.attrs.stride_w - g.attrs.pad_w};
  }
  __device__ Tap tap(int64_t i) const {
    const int64_t channels = g.group_in();
    const int64_t t = i / channels;
    const int64_t y = t / g.kernel_w;
    return {y, t - y * g.kernel_w, group * channels + (i - t * channels)};
  }
  __device__ Outer outer(int64_t i) const {
    if constexpr (kPatchIsInner) {
      return window(i);
    } else {
      return tap(i);
    }
  }
  __device__ Inner inner(int64_t i) const {
    if constexpr (kPatchIsInner) {
      return tap(i);
    } else {
      return window(i);
    }
  }
  __device__ acc_t<T> pixel(const Window& w, const Tap& t) const {
    const int64_t row = w.top + t.y;
    const int64_t column = w.left + t.x;
    if (row < 0 || row >= g.height || column < 0 || column >= g.width) {
      return 0;
    }
    return widen<acc_t<T>>(
        x[((w.image * g.height + row) * g.width + column) * g.channels + t.channel]);
  }
  __device__ acc_t<T> at(const Outer& outer, const Inner& inner) const {
    if constexpr (kPatchIsInner) {
      return pixel(outer, inner);
    } else {
      return pixel(inner, outer);
    }
  }
};

// dy as [pixels of x, taps x filters] of one group: what each pixel's taps led to.
template <typename T>
struct SpreadOperand {
  static constexpr bool kInnerFast = true;
  struct Outer {
    int64_t image, row, column;
  };
  struct Inner {
    int64_t y, x, filter;
  };

  const ConvGeometry& g;
  const T* dy;
  int64_t group;

  __device__ Outer outer(int64_t pixel) const {
    const int64_t line = pixel / g.width;
    const int64_t image = line / g.height;
    return {image, line - image * g.height + g.attrs.pad_h, pixel - line * g.width + g.attrs.pad_w};
  }
  __device__ Inner inner(int64_t i) const {
    const int64_t filters = g.group_out();
    const int64_t t = i / filters;
    const int64_t y = t / g.kernel_w;
    return {y, t - y * g.kernel_w, group * filters + (i - t * filters)};
  }
  __device__ acc_t<T> at(const Outer& p, const Inner& t) const {
    const int64_t down = p.row - t.y;
    const int64_t right = p.column - t.x;
    if (down < 0 || right < 0) {
      return 0;
    }
    const int64_t line = down / g.attrs.stride_h;
    const int64_t place = right / g.attrs.stride_w;
    if (line * g.attrs.stride_h != down || place * g.attrs.stride_w != right ||
        line >= g.out_height || place >= g.out_width) {
      return 0;
    }
    return widen<acc_t<T>>(
        dy[((p.image * g.out_height + line) * g.out_width + place) * g.out_channels + t.filter]);
  }
};

// A matrix in memory as it is: element (outer, inner) at outer * outer_stride + inner *
// inner_stride.
template <typename T, bool kInner>
struct PlainOperand {
  static constexpr bool kInnerFast = kInner;
  using Outer = int64_t;
  using Inner = int64_t;

  const T* data;
  int64_t outer_stride, inner_stride;

  __device__ Outer outer(int64_t i) const { return i * outer_stride; }
  __device__ Inner inner(int64_t i) const { return i * inner_stride; }
  __device__ acc_t<T> at(Outer outer, Inner inner) const {
    return widen<acc_t<T>>(data[outer + inner]);
  }
};

// weight of one group as [channels, taps x filters].
template <typename T>
struct TurnedWeight {
  static constexpr bool kInnerFast = false;
  using Outer = int64_t;
  using Inner = int64_t;

  const ConvGeometry& g;
  const T* weight;
  int64_t group;

  __device__ Outer outer(int64_t channel) const { return channel; }
  __device__ Inner inner(int64_t i) const {
    const int64_t filters = g.group_out();
    const int64_t t = i / filters;
    return (group * filters + (i - t * filters)) * g.patch() + t * g.group_in();
  }
  __device__ acc_t<T> at(Outer outer, Inner inner) const {
    return widen<acc_t<T>>(weight[inner + outer]);
  }
};

// One operand's elements of a tile, as a thread loads them.
template <typename Operand>
struct TileLoader {
  static constexpr int kCount = kTile * kDepth / kThreads;
  static constexpr int kOuters = Operand::kInnerFast ? kCount : 1;

  Operand operand;
  int64_t first, size;  // of the outer dimension
  typename Operand::Outer outers[kOuters];

  __device__ TileLoader(const Operand& o, int64_t first_outer, int64_t outer_size)
      : operand(o), first(first_outer), size(outer_size) {
#pragma unroll
    for (int i = 0; i < kOuters; ++i) {
      const int64_t at = first + row(i);
      outers[i] = at < size ? operand.outer(at) : typename Operand::Outer{};
    }
  }
  __device__ static int row(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return Operand::kInnerFast ? thread / kDepth + i * (kThreads / kDepth) : thread % kTile;
  }
  __device__ static int depth(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return Operand::kInnerFast ? thread % kDepth : thread / kTile + i * (kThreads / kTile);
  }
  template <typename A>
  __device__ void load_tile(int64_t begin, int64_t end, A (&tile)[kDepth][kTile + 1]) const {
    typename Operand::Inner inner{};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int64_t at = begin + depth(i);
      if ((i == 0 || !Operand::kInnerFast) && at < end) {
        inner = operand.inner(at);
      }
      const bool inside = at < end && first + row(i) < size;
      tile[depth(i)][row(i)] = inside ? operand.at(outers[i % kOuters], inner) : A(0);
    }
  }
};

// Calls store(row, column, sum) for the elements of this block's tile of left [rows, depth] times
// right [columns, depth], transposed.
template <typename A, typename Left, typename Right, typename Store>
__device__ void tile_product(const Left& left, const Right& right, int64_t rows, int64_t columns,
                             int64_t depth, Store&& store_sum) {
  __shared__ A of_left[kDepth][kTile + 1];
  __shared__ A of_right[kDepth][kTile + 1];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * kTile;
  const TileLoader<Left> load_left(left, first_row, rows);
  const TileLoader<Right> load_right(right, first_column, columns);
  const int own_row = static_cast<int>(threadIdx.x) / (kTile / kOwn) * kOwn;
  const int own_column = static_cast<int>(threadIdx.x) % (kTile / kOwn) * kOwn;
  A sums[kOwn][kOwn] = {};
  for (int64_t begin = 0; begin < depth; begin += kDepth) {
    load_left.load_tile(begin, depth, of_left);
    load_right.load_tile(begin, depth, of_right);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
          sums[i][j] += of_left[k][own_row + i] * of_right[k][own_column + j];
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t row = first_row + own_row + i;
      const int64_t column = first_column + own_column + j;
      if (row < rows && column < columns) {
        store_sum(row, column, sums[i][j]);
      }
    }
  }
}

struct ProductSize {
  int64_t rows, columns, depth;
};

constexpr ProductSize product_size(const ConvGeometry& g, ConvPass pass) {
  switch (pass) {
    case ConvPass::forward:
      return {g.positions(), g.group_out(), g.patch()};
    case ConvPass::dx:
      return {g.batch * g.height * g.width, g.group_in(), g.taps() * g.group_out()};
    default:
      return {g.group_out(), g.patch(), g.positions()};
  }
}

// Of x and weight, dy and weight, or x and dy.
template <ConvPass kPass, typename T>
__global__ void __launch_bounds__(kThreads)
    conv_gemm_kernel(const __grid_constant__ ConvGeometry g, const T* first, const T* second,
                     const T* bias, T* out) {
  using A = acc_t<T>;
  const int64_t group = blockIdx.z;
  const int64_t filter = group * g.group_out();
  const auto [rows, columns, depth] = product_size(g, kPass);
  if constexpr (kPass == ConvPass::forward) {
    const PatchOperand<T, true> patches{g, first, group};
    const PlainOperand<T, true> weight{second + filter * g.patch(), g.patch(), 1};
    tile_product<A>(patches, weight, rows, columns, depth, [&](int64_t row, int64_t column, A sum) {
      const A shift = bias == nullptr ? A(0) : widen<A>(bias[filter + column]);
      out[row * g.out_channels + filter + column] = narrow<T>(sum + shift);
    });
  } else if constexpr (kPass == ConvPass::dx) {
    const SpreadOperand<T> spread{g, first, group};
    const TurnedWeight<T> weight{g, second, group};
    tile_product<A>(spread, weight, rows, columns, depth, [&](int64_t row, int64_t column, A sum) {
      out[row * g.channels + group * g.group_in() + column] = narrow<T>(sum);
    });
  } else {
    const PlainOperand<T, false> slopes{second + filter, 1, g.out_channels};
    const PatchOperand<T, false> patches{g, first, group};
    tile_product<A>(slopes, patches, rows, columns, depth, [&](int64_t row, int64_t column, A sum) {
      out[(filter + row) * g.patch() + column] = narrow<T>(sum);
    });
  }
}

template <ConvPass kPass>
void launch(const KernelArgs& args, const ConvGeometry& g) {
  const ProductSize size = product_size(g, kPass);
  const dim3 grid(blocks_for(size.rows, kTile), blocks_for(size.columns, kTile),
                  static_cast<unsigned>(g.attrs.groups));
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const T* bias = args.in.size() > 2 ? args.in[2].as<T>() : nullptr;
    conv_gemm_kernel<kPass, T><<<grid, kThreads, 0, stream_of(args)>>>(
        g, args.in[0].as<T>(), args.in[1].as<T>(), bias, args.out[0].as<T>());
    check_launch(args.op);
  });
}

}  // namespace

void conv_gemm_cuda(const KernelArgs& args, const ConvGeometry& g, ConvPass pass) {
  switch (pass) {
    case ConvPass::forward:
      return launch<ConvPass::forward>(args, g);
    case ConvPass::dx:
      return launch<ConvPass::dx>(args, g);
    case ConvPass::dw:
      return launch<ConvPass::dw>(args, g);
  }
}

}  // namespace lithe
