// Activations with codes: forward eight elements a lane, whose codes are made before they leave
// their registers; backward the slope of every code stands in a table.
#include "tensor/core/tensor.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/cuda_activation.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/kernels_cuda.h"
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
constexpr int64_t kMultiprocessors = 132;  // of an H100

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

template <Activation kKind, typename T>
__device__ inline acc_t<T> slope_of(T kept) {
  if constexpr (std::is_same_v<T, double>) {
    return activation_slope<kKind>(kept);
  } else {
    return slope_fast<kKind>(widen<float>(kept));
  }
}

// The slope at what each code stands for, as activation_grad has it from the decoded tensor.
template <int kBits, typename T>
struct SlopeTable {
  using A = acc_t<T>;
  static constexpr int kCodes = 1 << kBits;
  Activation kind;
  bool is_signed;
  float step;

  __device__ static A* slopes() {
    __shared__ A of_code[kCodes];
    return of_code;
  }
  // All threads of the block, before the first look-up.
  __device__ void fill() const {
    const auto thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    const auto threads = static_cast<int>(blockDim.x * blockDim.y);
    for (int i = thread; i < kCodes; i += threads) {
      slopes()[i] = slope_at(narrow<T>(number(static_cast<uint32_t>(i)) * step));
    }
    __syncthreads();
  }
  __device__ float number(uint32_t code) const {
    if (!is_signed) {
      return static_cast<float>(code);
    }
    return kBits == 4 ? signed_nibble(code) : static_cast<float>(static_cast<int8_t>(code));
  }
  __device__ A slope_at(T kept) const {
    switch (kind) {
      case Activation::gelu:
        return slope_of<Activation::gelu>(kept);
      case Activation::gelu_tanh:
        return slope_of<Activation::gelu_tanh>(kept);
      case Activation::quick_gelu:
        return slope_of<Activation::quick_gelu>(kept);
      case Activation::silu:
        return slope_of<Activation::silu>(kept);
      case Activation::relu:
        return slope_of<Activation::relu>(kept);
      case Activation::tanh:
        return slope_of<Activation::tanh>(kept);
      case Activation::sigmoid:
        return slope_of<Activation::sigmoid>(kept);
      default:
        return A(1);
    }
  }
};

// Codes of kVector neighbours as words: bytes of a pack are taken apart as soon as they arrive, and
// the load behind them waits. Of 4 bits at least a byte.
template <int kBits, int kVector>
struct CodeWords {
  static constexpr int kBytes = kVector * kBits < 8 ? 1 : kVector * kBits / 8;
  uint32_t at[(kBytes + 3) / 4];

  // From element `first` on, a multiple of kVector.
  __device__ void load(const uint8_t* codes, int64_t first) {
    const uint8_t* from = codes + (kBits == 8 ? first : first >> 1);
    if constexpr (kBytes == 8) {
      const auto two = *reinterpret_cast<const uint2*>(from);
      at[0] = two.x;
      at[1] = two.y;
    } else if constexpr (kBytes == 4) {
      at[0] = *reinterpret_cast<const uint32_t*>(from);
    } else if constexpr (kBytes == 2) {
      at[0] = *reinterpret_cast<const uint16_t*>(from);
    } else {
      at[0] = kBits == 4 && kVector == 1 ? static_cast<uint32_t>(*from) >> (first % 2 * 4) : *from;
    }
  }
  __device__ uint32_t operator[](int j) const {
    return (at[j * kBits / 32] >> (j * kBits % 32)) & ((1u << kBits) - 1);
  }
};

template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads)
    activation_codes_grad_kernel(int64_t n, const SlopeTable<kBits, T> table, const T* dy,
                                 const uint8_t* codes, T* dx) {
  using A = acc_t<T>;
  const int64_t first = last_block_first() * kUnroll * kStep + int64_t{threadIdx.x} * kEight;
  Eight<T> words[kUnroll];
  CodeWords<kBits, kEight> code[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    if (const int64_t at = first + u * kStep; at + kEight <= n) {
      words[u] = load_eight(dy + at);
      code[u].load(codes, at);
    }
  }
  table.fill();  // while they arrive
  const A* slopes = table.slopes();
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t at = first + u * kStep;
    if (at + kEight <= n) {
      A v[kEight];
      unpack_eight(words[u], v);
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        v[j] *= slopes[code[u][j]];
      }
      store_eight(dx + at, pack_eight<T>(v));
    } else {
      for (int64_t i = at; i < n; ++i) {
        const uint32_t byte = codes[i * kBits / 8];
        const uint32_t c = kBits == 8 ? byte : (byte >> (i % 2 * 4)) & 15u;
        dx[i] = narrow<T>(widen<A>(dy[i]) * slopes[c]);
      }
    }
  }
}

// The same with dx's sums by column, in the walk of column_sum (cuda_column_sum.h).
template <int kBits, int kVector, typename T>
struct CodesTerm {
  SlopeTable<kBits, T> table;
  const T* dy;
  const uint8_t* codes;
  T* dx;
  struct Loaded {
    Words<T, kVector> upstream;
    CodeWords<kBits, kVector> code;
  };
  __device__ void begin() const { table.fill(); }
  __device__ Loaded load(int64_t at) const {
    Loaded loaded;
    loaded.upstream = load_or_words<kVector>(dy + at);
    loaded.code.load(codes, at);
    return loaded;
  }
  __device__ void add(const Loaded& loaded, int64_t at, acc_t<T> (&sums)[1][kVector]) const {
    using A = acc_t<T>;
    const A* slopes = table.slopes();
    if constexpr (kVector == 1) {
      const T out = narrow<T>(widen<A>(loaded.upstream.at[0]) * slopes[loaded.code[0]]);
      sums[0][0] += widen<A>(out);
      dx[at] = out;
    } else {
      A v[kVector];
      unpack<T>(loaded.upstream, v);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        v[j] *= slopes[loaded.code[j]];
      }
      const uint4 out = pack<T>(v);
      store_words(dx + at, out);
      unpack<T>(out, v);  // as they are stored
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[0][j] += v[j];
      }
    }
  }
};

template <int kBits, typename T>
void grad(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesGradAttrs>();
  const SlopeTable<kBits, T> table = {attrs.grad.kind, attrs.code.is_signed && !attrs.code.unit,
                                      1.0f / fixed_point_grid(attrs.code).factor};
  const T* dy = args.in[0].as<T>();
  const auto* codes = args.in[1].as<uint8_t>();
  T* dx = args.out[0].as<T>();
  const Shape& shape = args.in[0].shape;
  if (attrs.grad.column_sum) {
    const auto term = [&]<int kVector>() {
      return CodesTerm<kBits, kVector, T>{table, dy, codes, dx};
    };
    column_sum<1, T>(args, shape.product(0, shape.rank() - 1), shape.back(), term,
                     args.out[1].as<T>(), static_cast<T*>(nullptr));
    return;
  }
  if (const int64_t n = shape.numel(); n > 0) {
    activation_codes_grad_kernel<kBits, T>
        <<<blocks_for(n, kTile), kThreads, 0, stream_of(args)>>>(n, table, dy, codes, dx);
    check_launch(args.op);
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
          std::min<int64_t>(blocks_for(n, kTile), kMultiprocessors * kCodesResident<T>);
      activation_codes_kernel<kKind, T>
          <<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(args)>>>(
              n, args.in[0].as<T>(), args.out[0].as<T>(), of_x, of_y);
    });
  });
  check_launch(args.op);
}

void activation_codes_grad_cuda(const KernelArgs& args) {
  const int bits = fixed_point_grid(args.attr<ActivationCodesGradAttrs>().code).bits;
  dispatch_floating(args.in[0].dtype, args.op,
                    [&]<typename T>() { bits == 4 ? grad<4, T>(args) : grad<8, T>(args); });
}

}  // namespace lithe
