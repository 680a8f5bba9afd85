// Activations with codes: eight elements a lane, whose codes are made before they leave their
// registers.
#include "tensor/core/tensor.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/cuda_activation.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/processors.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kEight = 8;
constexpr int kUnroll = 2;
constexpr int kStep = kThreads * kEight;

constexpr int kTile = kUnroll * kStep;

// What a thread has of a tile, as far as whole packs reach.
template <typename T>
struct Tile {
  Eight<T> words[kUnroll];
  bool inside[kUnroll];

  __device__ void load(const T* x, int64_t first, int64_t n) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      words[u] = {};
      inside[u] = first >= 0 && first + u * kStep + kEight <= n;
      if (inside[u]) {
        words[u] = load_eight(x + first + u * kStep);
      }
    }
  }
};

// Blocks of a multiprocessor, as far as registers reach; fp64, the oracle's type, takes what it
// gets.
template <typename T>
constexpr int kCodesResident = sizeof(T) == 2   ? 4
                               : sizeof(T) == 4 ? 3
                                                : 1;

// A block takes one tile after the other, from the end, which the kernel before has left in the
// cache; the next is on its way while it works on one. y may be x.
template <Activation kKind, typename T>
__global__ void __launch_bounds__(kThreads, kCodesResident<T>)
    activation_codes_kernel(int64_t n, const T* x, T* y, const __grid_constant__ CodeTo of_x,
                            const __grid_constant__ CodeTo of_y) {
  const int64_t step = int64_t{gridDim.x} * kTile;
  int64_t first = ((n - 1) / kTile - blockIdx.x) * kTile + int64_t{threadIdx.x} * kEight;
  Tile<T> tile;
  tile.load(x, first, n);
  for (; first >= 0; first -= step) {
    Tile<T> next;
    next.load(x, first - step, n);
    float v[kUnroll][kEight];
    if (of_x.kind != SavedCode::Kind::none) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        unpack_eight(tile.words[u], v[u]);
      }
      encode_lanes(of_x, v, first, kStep, tile.inside);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      acc_t<T> numbers[kEight];
      unpack_eight(tile.words[u], numbers);
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        if constexpr (std::is_same_v<T, double>) {
          numbers[j] = activate<kKind>(numbers[j]);
        } else {
          numbers[j] = activate_fast<kKind>(numbers[j]);
        }
      }
      tile.words[u] = pack_eight<T>(numbers);
      if (tile.inside[u]) {
        store_eight(y + first + u * kStep, tile.words[u]);
      }
    }
    if (of_y.kind != SavedCode::Kind::none) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        unpack_eight(tile.words[u], v[u]);
      }
      encode_lanes(of_y, v, first, kStep, tile.inside);
    }
#pragma unroll 1
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = first + u * kStep;
      if (at < n && at + kEight > n) {  // of fixed point; groups end with a pack
        if (of_x.kind != SavedCode::Kind::none) {
          encode_rest(of_x, x, at, n);
        }
        for (int64_t i = at; i < n; ++i) {
          y[i] = Activate<kKind, T>{}(x[i]);
        }
        if (of_y.kind != SavedCode::Kind::none) {
          encode_rest(of_y, y, at, n);
        }
      }
    }
    tile = next;
  }
}

}  // namespace

void activation_codes_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesAttrs>();
  const int64_t n = args.in[0].numel();
  if (n == 0) {
    return;
  }
  const auto parts = args.out.subspan(1);
  const CodeTo of_x = code_to(attrs.x, parts);
  const CodeTo of_y = code_to(attrs.y, parts.subspan(static_cast<size_t>(attrs.x.parts())));
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    dispatch_activation(attrs.kind, [&]<Activation kKind>() {
      const int64_t blocks =
          std::min<int64_t>(blocks_for(n, kTile), kProcessors * kCodesResident<T>);
      activation_codes_kernel<kKind, T>
          <<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(args)>>>(
              n, args.in[0].as<T>(), args.out[0].as<T>(), of_x, of_y);
    });
  });
  check_launch(args.op);
}

}  // namespace lithe
