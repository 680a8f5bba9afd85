// Gradients of activations from codes of what they keep: of fixed point the slope of every code
// stands in a table, of codes with scales it is computed as activation_grad computes it.
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
  // Code j as a signed number.
  __device__ float number(int j) const {
    return kBits == 8 ? shifted_byte(at[j / 4] ^ kSignBits8, j % 4)
                      : shifted_nibble(at[0] ^ kSignBits4, j);
  }
};

template <Activation kKind, typename T>
__device__ inline acc_t<T> slope_of(T kept) {
  if constexpr (std::is_same_v<T, double>) {
    return activation_slope<kKind>(kept);
  } else {
    return slope_fast<kKind>(widen<float>(kept));
  }
}

// The slope at what each code stands for, as activation_grad has it from the decoded tensor.
template <int kBits, typename T_>
struct SlopeTable {
  using T = T_;
  using A = acc_t<T>;
  template <int kVector>
  using Loaded = CodeWords<kBits, kVector>;
  static constexpr int kCodes = 1 << kBits;
  Activation kind;
  bool is_signed;
  float step;
  const uint8_t* codes;

  __device__ static A* slopes() {
    __shared__ A of_code[kCodes];
    return of_code;
  }
  // All threads of the block, before the first look-up.
  __device__ void begin() const {
    const auto thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    const auto threads = static_cast<int>(blockDim.x * blockDim.y);
    for (int i = thread; i < kCodes; i += threads) {
      slopes()[i] = slope_at(narrow<T>(number(static_cast<uint32_t>(i)) * step));
    }
    __syncthreads();
  }
  template <int kVector>
  __device__ Loaded<kVector> load(int64_t at) const {
    Loaded<kVector> code;
    code.load(codes, at);
    return code;
  }
  // v of kVector neighbours from element `at` on times their slopes.
  template <int kVector>
  __device__ void multiply(const Loaded<kVector>& code, int64_t /*at*/, A (&v)[kVector]) const {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      v[j] *= slopes()[code[j]];
    }
  }
  // Of those behind the last whole pack.
  __device__ A of_element(int64_t i) const {
    const uint32_t byte = codes[i * kBits / 8];
    return slopes()[kBits == 8 ? byte : (byte >> (i % 2 * 4)) & 15u];
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

// kVector numbers as T holds them.
template <typename T, int kVector>
__device__ inline void round_to(const float (&x)[kVector], acc_t<T> (&v)[kVector]) {
  if constexpr (kVector % kWide<T> == 0) {  // in pairs
#pragma unroll
    for (int i = 0; i < kVector; i += kWide<T>) {
      acc_t<T> part[kWide<T>];
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) {
        part[j] = x[i + j];
      }
      unpack<T>(pack<T>(part), part);
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) {
        v[i + j] = part[j];
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      v[j] = widen<acc_t<T>>(narrow<T>(x[j]));
    }
  }
}

// The slope at a code times its group's scale; kVector neighbours are of one group.
template <Activation kKind, int kBits, typename T_>
struct ScaledSlopes {
  using T = T_;
  using A = acc_t<T>;
  template <int kVector>
  struct Loaded {
    CodeWords<kBits, kVector> code;
    uint32_t scale;
  };
  CodeFrom from;

  __device__ void begin() const {}
  template <int kVector>
  __device__ Loaded<kVector> load(int64_t at) const {
    Loaded<kVector> loaded;
    loaded.code.load(from.codes, at);
    loaded.scale = *scale_word(from.scales, from.scale, at >> from.group_bits);
    return loaded;
  }
  template <int kVector>
  __device__ void multiply(const Loaded<kVector>& loaded, int64_t at, A (&v)[kVector]) const {
    const float factor = scale_number(loaded.scale, from.scale, at >> from.group_bits);
    float x[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      x[j] = loaded.code.number(j) * factor;
    }
    A kept[kVector];
    round_to<T>(x, kept);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if constexpr (std::is_same_v<T, double>) {
        v[j] *= activation_slope<kKind>(kept[j]);
      } else {
        v[j] *= slope_fast<kKind>(kept[j]);
      }
    }
  }
};

template <typename Slopes, typename T = typename Slopes::T>
__global__ void __launch_bounds__(kThreads)
    activation_codes_grad_kernel(int64_t n, const Slopes slopes, const T* dy, T* dx) {
  using A = acc_t<T>;
  const int64_t first = last_block_first() * kUnroll * kStep + int64_t{threadIdx.x} * kEight;
  Eight<T> words[kUnroll];
  typename Slopes::template Loaded<kEight> code[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    if (const int64_t at = first + u * kStep; at + kEight <= n) {
      words[u] = load_eight(dy + at);
      code[u] = slopes.template load<kEight>(at);
    }
  }
  slopes.begin();  // while they arrive
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t at = first + u * kStep;
    if (at + kEight <= n) {
      A v[kEight];
      unpack_eight(words[u], v);
      slopes.template multiply<kEight>(code[u], at, v);
      store_eight(dx + at, pack_eight<T>(v));
    } else if constexpr (requires { slopes.of_element(at); }) {  // groups end with a pack
      for (int64_t i = at; i < n; ++i) {
        dx[i] = narrow<T>(widen<A>(dy[i]) * slopes.of_element(i));
      }
    }
  }
}

// The same with dx's sums by column, in the walk of column_sum (cuda_column_sum.h).
template <typename Slopes, int kVector>
struct CodesTerm {
  using T = typename Slopes::T;
  using A = acc_t<T>;
  Slopes slopes;
  const T* dy;
  T* dx;
  struct Loaded {
    Words<T, kVector> upstream;
    typename Slopes::template Loaded<kVector> code;
  };
  __device__ void begin() const { slopes.begin(); }
  __device__ Loaded load(int64_t at) const {
    return {load_or_words<kVector>(dy + at), slopes.template load<kVector>(at)};
  }
  __device__ void add(const Loaded& loaded, int64_t at, A (&sums)[1][kVector]) const {
    A v[kVector];
    if constexpr (kVector == 1) {
      v[0] = widen<A>(loaded.upstream.at[0]);
      slopes.template multiply<1>(loaded.code, at, v);
      const T out = narrow<T>(v[0]);
      sums[0][0] += widen<A>(out);
      dx[at] = out;
    } else {
      unpack<T>(loaded.upstream, v);
      slopes.template multiply<kVector>(loaded.code, at, v);
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

template <typename Slopes>
void grad(const KernelArgs& args, const Slopes& slopes) {
  using T = typename Slopes::T;
  const T* dy = args.in[0].as<T>();
  T* dx = args.out[0].as<T>();
  const Shape& shape = args.in[0].shape;
  if (args.attr<ActivationCodesGradAttrs>().grad.column_sum) {
    const auto term = [&]<int kVector>() { return CodesTerm<Slopes, kVector>{slopes, dy, dx}; };
    column_sum<1, T>(args, shape.product(0, shape.rank() - 1), shape.back(), term,
                     args.out[1].as<T>(), static_cast<T*>(nullptr));
    return;
  }
  if (const int64_t n = shape.numel(); n > 0) {
    activation_codes_grad_kernel<Slopes>
        <<<blocks_for(n, kTile), kThreads, 0, stream_of(args)>>>(n, slopes, dy, dx);
    check_launch(args.op);
  }
}

template <int kBits, typename T>
void grad_of_bits(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesGradAttrs>();
  if (attrs.code.kind == SavedCode::Kind::quantized) {
    dispatch_activation(attrs.grad.kind, [&]<Activation kKind>() {
      grad(args, ScaledSlopes<kKind, kBits, T>{code_from(attrs.code, args.in[1], args.in[2])});
    });
    return;
  }
  const FixedPointAttrs& fixed = attrs.code.fixed;
  grad(args, SlopeTable<kBits, T>{attrs.grad.kind, fixed.is_signed && !fixed.unit,
                                  1.0f / fixed_point_grid(fixed).factor, args.in[1].as<uint8_t>()});
}

}  // namespace

void activation_codes_grad_cuda(const KernelArgs& args) {
  const SavedCode code = args.attr<ActivationCodesGradAttrs>().code;
  const int bits =
      code.kind == SavedCode::Kind::quantized ? code.bits : fixed_point_grid(code.fixed).bits;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    bits == 4 ? grad_of_bits<4, T>(args) : grad_of_bits<8, T>(args);
  });
}

}  // namespace lithe
