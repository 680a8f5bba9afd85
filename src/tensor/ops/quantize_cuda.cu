// Codes with a scale a row or group. Where groups are made of whole packs of eight elements, some
// lanes of a warp share a group, whose elements stay in registers between the largest magnitude and
// the codes; other shapes take a kernel for the scales and one for the codes.
#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/quantize.h"
#include "tensor/ops/quantize_scale.h"
#include "tensor/ops/round_code.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kEight = 8;
constexpr int kMostPacks = 4;  // of a lane, in registers

struct Params {
  const void* x = nullptr;
  uint8_t* codes = nullptr;
  void* scales = nullptr;
  const int64_t* rng = nullptr;  // null: round to nearest
  uint64_t key = 0;
  DType scale = DType::f32;
  float highest = 0;
  int64_t columns = 0;
  int64_t group = 0;
  int64_t groups_of_row = 0;
  int64_t groups = 0;  // of all rows
  int64_t count = 0;   // of elements
};

// The site's random numbers of this step, where rounding is up to them.
struct Chance {
  bool on = false;
  uint64_t seed = 0;
  uint64_t stream = 0;

  __device__ explicit Chance(const Params& p) : on(p.rng != nullptr) {
    if (on) {
      seed = static_cast<uint64_t>(p.rng[0]);
      stream = mix(p.key, static_cast<uint64_t>(p.rng[1]));
    }
  }
};

template <typename T>
__device__ inline uint32_t encode_one(T x, float inverse, const Params& p, const Chance& chance,
                                      int64_t i) {
  const float scaled = clamp_code(widen<float>(x) * inverse, -p.highest, p.highest);
  return chance.on ? random_code(scaled, code_lane(chance.seed, chance.stream, i))
                   : nearest_code(scaled);
}

template <int kBits, typename T>
__device__ inline void encode_pack(const Pack<T, kEight>& in, float inverse, const Params& p,
                                   const Chance& chance, int64_t first) {
  uint32_t code[kEight];
  if (chance.on) {
    // An aligned pack's lanes are those of one block.
    static_assert(kEight == kDropoutLanes);
    const PhiloxBlock block =
        dropout_block(chance.seed, chance.stream, static_cast<uint64_t>(first / kEight));
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      code[i] = random_code(clamp_code(widen<float>(in.at[i]) * inverse, -p.highest, p.highest),
                            dropout_lane(block, i));
    }
  } else {
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      code[i] = nearest_code(clamp_code(widen<float>(in.at[i]) * inverse, -p.highest, p.highest));
    }
  }
  Pack<uint8_t, kBits> out;
#pragma unroll
  for (int i = 0; i < kBits; ++i) {
    if constexpr (kBits == 8) {
      out.at[i] = static_cast<uint8_t>(code[i]);
    } else {
      out.at[i] = static_cast<uint8_t>((code[2 * i] & 15u) | (code[2 * i + 1] << 4));
    }
  }
  store(p.codes + first * kBits / 8, out);
}

template <typename T>
__device__ inline float largest_of(const Pack<T, kEight>& in, float largest) {
#pragma unroll
  for (int i = 0; i < kEight; ++i) {
    const float a = fabsf(widen<float>(in.at[i]));
    largest = a > largest ? a : largest;
  }
  return largest;
}

template <int kLanes>
__device__ inline float join_lanes(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

// kLanes lanes a group of kPacks packs a lane at most; kPacks 0: the group is read again instead.
template <int kBits, int kLanes, int kPacks, typename T>
__global__ void __launch_bounds__(kThreads) encode_groups_kernel(const __grid_constant__ Params p) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  const bool inside = k < p.groups;
  const int packs = inside ? static_cast<int>(p.group / kEight) : 0;
  const int64_t first = k * p.group;
  const T* x = static_cast<const T*>(p.x) + first;
  constexpr int kKept = kPacks == 0 ? 1 : kPacks;
  Pack<T, kEight> kept[kKept];
  float largest = 0;
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (const int at = lane + i * kLanes; at < packs) {
        kept[i] = load<kEight>(x + at * kEight);
        largest = largest_of(kept[i], largest);
      }
    }
  } else {
    for (int at = lane; at < packs; at += kLanes) {
      largest = largest_of(load<kEight>(x + int64_t{at} * kEight), largest);
    }
  }
  const float scale = stored_scale(join_lanes<kLanes>(largest), p.highest, p.scale);
  const float inverse = inverse_scale(scale);
  if (inside && lane == 0) {
    put_scale(p.scales, p.scale, k, scale);
  }
  const Chance chance(p);
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (const int at = lane + i * kLanes; at < packs) {
        encode_pack<kBits>(kept[i], inverse, p, chance, first + at * kEight);
      }
    }
  } else {
    for (int at = lane; at < packs; at += kLanes) {
      const int64_t from = int64_t{at} * kEight;
      encode_pack<kBits>(load<kEight>(x + from), inverse, p, chance, first + from);
    }
  }
}

// Any shape: a warp a group for its scale.
template <typename T>
__global__ void __launch_bounds__(kThreads) scales_kernel(const __grid_constant__ Params p) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (k >= p.groups) {
    return;  // the whole warp
  }
  const int64_t column = k % p.groups_of_row * p.group;
  const T* x = static_cast<const T*>(p.x) + k / p.groups_of_row * p.columns + column;
  const int64_t n = p.group < p.columns - column ? p.group : p.columns - column;
  float largest = 0;
  for (int64_t i = threadIdx.x % kWarp; i < n; i += kWarp) {
    const float a = fabsf(widen<float>(x[i]));
    largest = a > largest ? a : largest;
  }
  const float scale = stored_scale(join_lanes<kWarp>(largest), p.highest, p.scale);
  if (threadIdx.x % kWarp == 0) {
    put_scale(p.scales, p.scale, k, scale);
  }
}

__device__ inline float scale_of(const Params& p, int64_t i) {
  const int64_t k = i / p.columns * p.groups_of_row + i % p.columns / p.group;
  return get_scale(p.scales, p.scale, k);
}

// And a byte a thread for the codes.
template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads) encode_bytes_kernel(const __grid_constant__ Params p) {
  constexpr int64_t kOfByte = 8 / kBits;
  const int64_t byte = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = byte * kOfByte;
  if (first >= p.count) {
    return;
  }
  const T* x = static_cast<const T*>(p.x);
  const Chance chance(p);
  const auto code = [&](int64_t i) {
    return encode_one(x[i], inverse_scale(scale_of(p, i)), p, chance, i);
  };
  uint32_t out = code(first);
  if constexpr (kBits == 4) {
    out = (out & 15u) | (first + 1 < p.count ? code(first + 1) << 4 : 0u);
  }
  p.codes[byte] = static_cast<uint8_t>(out);
}

template <int kBits>
__device__ inline float number(const uint8_t* codes, int64_t i) {
  if constexpr (kBits == 4) {
    return signed_nibble(static_cast<uint32_t>(codes[i / 2]) >> (i % 2 * 4));
  } else {
    return static_cast<float>(static_cast<int8_t>(codes[i]));
  }
}

// Eight elements a thread; all of one group where kWhole.
template <int kBits, bool kWhole, typename T>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ Params p, T* __restrict__ x) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEight;
  if (first >= p.count) {
    return;
  }
  if constexpr (kWhole) {
    const auto in = load<kBits>(p.codes + first * kBits / 8);
    const float scale = get_scale(p.scales, p.scale, first / p.group);
    Pack<T, kEight> out;
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      out.at[i] = narrow<T>(number<kBits>(in.at, i) * scale);
    }
    store(x + first, out);
  } else {
    for (int64_t i = first; i < first + kEight && i < p.count; ++i) {
      x[i] = narrow<T>(number<kBits>(p.codes, i) * scale_of(p, i));
    }
  }
}

Params params_of(const QuantizeAttrs& attrs, const Shape& shape) {
  const QuantizeLayout layout(shape, attrs);
  Params p;
  p.key = attrs.key;
  p.scale = attrs.scale;
  p.highest = attrs.bits == 4 ? 7.0f : 127.0f;
  p.columns = layout.columns;
  p.group = layout.group;
  p.groups_of_row = layout.groups_of_row;
  p.groups = layout.rows * layout.groups_of_row;
  p.count = layout.rows * layout.columns;
  return p;
}

// Every group is whole and made of packs.
bool has_whole_packs(const Params& p) {
  return p.group % kEight == 0 && p.columns % p.group == 0 && p.group < INT32_MAX;
}

template <int kBits, int kLanes, int kPacks, typename T>
void launch_groups(const KernelArgs& args, const Params& p) {
  const unsigned blocks = blocks_for(p.groups, kThreads / kLanes);
  encode_groups_kernel<kBits, kLanes, kPacks, T><<<blocks, kThreads, 0, stream_of(args)>>>(p);
}

template <int kBits, typename T>
void encode(const KernelArgs& args, const Params& p) {
  if (!has_whole_packs(p)) {
    scales_kernel<T><<<blocks_for(p.groups, kThreads / kWarp), kThreads, 0, stream_of(args)>>>(p);
    check_launch(args.op);
    encode_bytes_kernel<kBits, T>
        <<<blocks_for((p.count * kBits + 7) / 8, kThreads), kThreads, 0, stream_of(args)>>>(p);
    return;
  }
  const int64_t packs = p.group / kEight;
  if (packs <= 4) {
    launch_groups<kBits, 4, 1, T>(args, p);
  } else if (packs <= 8) {
    launch_groups<kBits, 8, 1, T>(args, p);
  } else if (packs <= 16) {
    launch_groups<kBits, 16, 1, T>(args, p);
  } else if (packs <= kWarp) {
    launch_groups<kBits, kWarp, 1, T>(args, p);
  } else if (packs <= kMostPacks * kWarp) {
    launch_groups<kBits, kWarp, kMostPacks, T>(args, p);
  } else {
    launch_groups<kBits, kWarp, 0, T>(args, p);
  }
}

template <int kBits, typename T>
void decode(const KernelArgs& args, const Params& p) {
  T* x = args.out[0].as<T>();
  const unsigned blocks = blocks_for(p.count, int64_t{kThreads} * kEight);
  if (has_whole_packs(p)) {
    decode_kernel<kBits, true><<<blocks, kThreads, 0, stream_of(args)>>>(p, x);
  } else {
    decode_kernel<kBits, false><<<blocks, kThreads, 0, stream_of(args)>>>(p, x);
  }
}

}  // namespace

void quantize_encode_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<QuantizeAttrs>();
  Params p = params_of(attrs, args.in[0].shape);
  p.x = args.in[0].data;
  p.codes = args.out[0].as<uint8_t>();
  p.scales = args.out[1].data;
  p.rng = attrs.stochastic ? args.in[1].as<int64_t>() : nullptr;
  if (p.count == 0) {
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    attrs.bits == 4 ? encode<4, T>(args, p) : encode<8, T>(args, p);
  });
  check_launch(args.op);
}

void quantize_decode_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<QuantizeAttrs>();
  Params p = params_of(attrs, args.out[0].shape);
  p.codes = args.in[0].as<uint8_t>();
  p.scales = args.in[1].data;
  if (p.count == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    attrs.bits == 4 ? decode<4, T>(args, p) : decode<8, T>(args, p);
  });
  check_launch(args.op);
}

}  // namespace lithe
