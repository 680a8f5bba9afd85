// Codes with a scale a row or group. Where groups are made of whole packs of eight elements, some
// lanes of a warp share a group, whose elements stay in registers between the largest magnitude and
// the codes; other shapes take a kernel for the scales and one for the codes. Neighbouring calls of
// one kind, as of attention's operands, are one launch.
#include <bit>
#include <vector>

#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/quantize.h"
#include "tensor/ops/quantize_scale.h"
#include "tensor/ops/round_code.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kEight = 8;
constexpr int kMostPacks = 4;  // of a lane, in registers

struct Params {
  void* x = nullptr;
  uint8_t* codes = nullptr;
  void* scales = nullptr;
  const int64_t* rng = nullptr;  // null: round to nearest
  uint64_t key = 0;
  DType scale = DType::f32;
  float highest = 0;
  int64_t columns = 0;
  int64_t group = 0;
  int32_t group_bits = -1;  // of a power of two
  int64_t groups_of_row = 0;
  int64_t groups = 0;  // of all rows
  int64_t count = 0;   // of elements
};

// The calls of one launch.
constexpr int kMostCalls = 8;
struct Calls {
  Params call[kMostCalls];
  uint32_t first[kMostCalls] = {};  // block of each call
  int32_t count = 0;

  // The call of this block, and which of the call's blocks it is.
  __device__ const Params& find(int64_t& block) const {
    int i = count - 1;
    while (blockIdx.x < first[i]) {
      --i;
    }
    block = static_cast<int64_t>(blockIdx.x - first[i]);
    return call[i];
  }
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

template <int kBits>
__device__ inline void encode_eight(const float (&v)[kEight], float inverse, const Params& p,
                                    const Chance& chance, int64_t first) {
  uint32_t code[kEight];
  if (chance.on) {
    // An aligned pack's lanes are those of one block.
    static_assert(kEight == kDropoutLanes);
    const PhiloxBlock block =
        dropout_block(chance.seed, chance.stream, static_cast<uint64_t>(first / kEight));
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      code[i] =
          random_code(clamp_code(v[i] * inverse, -p.highest, p.highest), dropout_lane(block, i));
    }
  } else {
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      code[i] = nearest_code(clamp_code(v[i] * inverse, -p.highest, p.highest));
    }
  }
  if constexpr (kBits == 8) {
    store_bytes<8>(p.codes + first, four_bytes(code[0], code[1], code[2], code[3]),
                   four_bytes(code[4], code[5], code[6], code[7]));
  } else {
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      word |= (code[i] & 15u) << (4 * i);
    }
    store_bytes<4>(p.codes + first / 2, word, 0);
  }
}

template <int kLanes>
__device__ inline float join_lanes(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

// Groups of a pack a lane that some lanes work on at once.
constexpr int kGroupsAtOnce = 4;

// kLanes lanes a group; of each of the groups a lane has a pack, all on their way before the first
// is used.
template <int kBits, int kLanes, typename T>
__global__ void __launch_bounds__(kThreads)
    encode_packs_kernel(const __grid_constant__ Calls calls) {
  constexpr int kOfBlock = kThreads / kLanes;
  int64_t block = 0;
  const Params p = calls.find(block);
  const int64_t k = block * kOfBlock * kGroupsAtOnce + threadIdx.x / kLanes;
  const int column = static_cast<int>(threadIdx.x % kLanes) * kEight;
  const int64_t first = k * p.group + column;
  const int64_t step = kOfBlock * p.group;
  const T* x = static_cast<const T*>(p.x);
  Eight<T> words[kGroupsAtOnce];
#pragma unroll
  for (int g = 0; g < kGroupsAtOnce; ++g) {
    words[g] = {};
    if (column < p.group && k + g * kOfBlock < p.groups) {
      words[g] = load_eight(x + first + g * step);
    }
  }
  const Chance chance(p);
  float largest[kGroupsAtOnce];
  float inverse[kGroupsAtOnce];
#pragma unroll
  for (int g = 0; g < kGroupsAtOnce; ++g) {
    float v[kEight];
    unpack_eight(words[g], v);
    largest[g] = largest_of(v);
  }
  share_scales(largest, kLanes, p.highest, p.scale, inverse, [&](int g, float scale) {
    if (k + g * kOfBlock < p.groups) {
      put_scale(p.scales, p.scale, k + g * kOfBlock, scale);
    }
  });
#pragma unroll
  for (int g = 0; g < kGroupsAtOnce; ++g) {
    if (column < p.group && k + g * kOfBlock < p.groups) {
      float v[kEight];
      unpack_eight(words[g], v);
      encode_eight<kBits>(v, inverse[g], p, chance, first + g * step);
    }
  }
}

// A warp a group of kPacks packs a lane at most; kPacks 0: the group is read again instead.
template <int kBits, int kPacks, typename T>
__global__ void __launch_bounds__(kThreads)
    encode_groups_kernel(const __grid_constant__ Calls calls) {
  int64_t block = 0;
  const Params p = calls.find(block);
  const int64_t k = block * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (k >= p.groups) {
    return;  // the whole warp
  }
  const int64_t first = k * p.group;
  const T* x = static_cast<const T*>(p.x) + first;
  Eight<T> kept[kPacks == 0 ? 1 : kPacks];
  const int lane = static_cast<int>(threadIdx.x % kWarp) * kEight;
  constexpr int kStep = kWarp * kEight;
  const int size = static_cast<int>(p.group);
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (lane + i * kStep < size) {
      kept[i] = load_eight(x + lane + i * kStep);
    }
  }
  float largest = 0;
  const auto for_packs = [&](auto&& f) {
    float v[kEight];
    if constexpr (kPacks > 0) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        if (lane + i * kStep < size) {
          unpack_eight(kept[i], v);
          f(v, lane + i * kStep);
        }
      }
    } else {
      for (int64_t at = lane; at < size; at += kStep) {
        unpack_eight(load_eight(x + at), v);
        f(v, at);
      }
    }
  };
  for_packs([&](const float(&v)[kEight], int64_t) { largest = fmaxf(largest, largest_of(v)); });
  const Chance chance(p);
  const float scale = stored_scale(join_lanes<kWarp>(largest), p.highest, p.scale);
  const float inverse = inverse_scale(scale);
  if (lane == 0) {
    put_scale(p.scales, p.scale, k, scale);
  }
  for_packs([&](const float(&v)[kEight], int64_t at) {
    encode_eight<kBits>(v, inverse, p, chance, first + at);
  });
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

constexpr int kDecodedPacks = 4;  // of a thread, all on their way before the first is used

template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads)
    decode_groups_kernel(const __grid_constant__ Calls calls) {
  int64_t block = 0;
  const Params p = calls.find(block);
  const int64_t first = (block * kDecodedPacks * kThreads + threadIdx.x) * kEight;
  constexpr int kStep = kThreads * kEight;
  // Behind the end the last pack is read once more: loads under a condition would wait for each
  // other.
  const int64_t last = p.count - kEight;
  int64_t from[kDecodedPacks];
  int64_t group[kDecodedPacks];
#pragma unroll
  for (int u = 0; u < kDecodedPacks; ++u) {
    from[u] = first + u * kStep < last ? first + u * kStep : last;
    group[u] = from[u] >> (p.group_bits >= 0 ? p.group_bits : 0);
  }
  if (p.group_bits < 0) {
#pragma unroll
    for (int64_t& k : group) {
      k /= p.group;
    }
  }
  uint2 codes[kDecodedPacks];
  uint32_t scale[kDecodedPacks];
#pragma unroll
  for (int u = 0; u < kDecodedPacks; ++u) {
    if constexpr (kBits == 8) {
      codes[u] = *reinterpret_cast<const uint2*>(p.codes + from[u]);
    } else {
      codes[u] = {*reinterpret_cast<const uint32_t*>(p.codes + from[u] / 2), 0};
    }
    scale[u] = *scale_word(p.scales, p.scale, group[u]);
  }
#pragma unroll
  for (int u = 0; u < kDecodedPacks; ++u) {
    if (const int64_t at = first + u * kStep; at < p.count) {
      const float factor = scale_number(scale[u], p.scale, group[u]);
      float v[kEight];
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        if constexpr (kBits == 8) {
          v[j] = shifted_byte((j < 4 ? codes[u].x : codes[u].y) ^ kSignBits8, j % 4) * factor;
        } else {
          v[j] = shifted_nibble(codes[u].x ^ kSignBits4, j) * factor;
        }
      }
      store_eight(static_cast<T*>(p.x) + at, pack_eight<T>(v));
    }
  }
}

// Any shape, eight elements a thread.
template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ Params p) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEight;
  for (int64_t i = first; i < first + kEight && i < p.count; ++i) {
    static_cast<T*>(p.x)[i] = narrow<T>(number<kBits>(p.codes, i) * scale_of(p, i));
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
  const auto size = static_cast<uint64_t>(layout.group);
  p.group_bits = std::has_single_bit(size) ? std::countr_zero(size) : -1;
  p.groups_of_row = layout.groups_of_row;
  p.groups = layout.rows * layout.groups_of_row;
  p.count = layout.rows * layout.columns;
  return p;
}

// Every group is whole and made of packs.
bool has_whole_packs(const Params& p) {
  return p.group % kEight == 0 && p.columns % p.group == 0 && p.group < INT32_MAX;
}

// Launches kernel(calls), blocks_of(call) blocks each.
template <typename Blocks>
void launch(const KernelArgs& args, void (*kernel)(Calls), std::span<const Params> calls,
            Blocks&& blocks_of) {
  Calls all;
  uint32_t blocks = 0;
  for (const Params& p : calls) {
    all.call[all.count] = p;
    all.first[all.count++] = blocks;
    blocks += blocks_of(p);
  }
  kernel<<<blocks, kThreads, 0, stream_of(args)>>>(all);
  check_launch(args.op);
}

// A pack a lane.
template <int kBits, int kLanes, typename T>
void encode_packs(const KernelArgs& args, std::span<const Params> calls) {
  launch(args, encode_packs_kernel<kBits, kLanes, T>, calls,
         [](const Params& p) { return blocks_for(p.groups, kThreads / kLanes * kGroupsAtOnce); });
}
template <int kBits, int kPacks, typename T>
void encode_groups(const KernelArgs& args, std::span<const Params> calls) {
  launch(args, encode_groups_kernel<kBits, kPacks, T>, calls,
         [](const Params& p) { return blocks_for(p.groups, kThreads / kWarp); });
}

template <int kBits, typename T>
void encode(const KernelArgs& args, std::span<const Params> calls) {
  const Params& p = calls.front();
  if (!has_whole_packs(p)) {
    scales_kernel<T><<<blocks_for(p.groups, kThreads / kWarp), kThreads, 0, stream_of(args)>>>(p);
    check_launch(args.op);
    encode_bytes_kernel<kBits, T>
        <<<blocks_for((p.count * kBits + 7) / 8, kThreads), kThreads, 0, stream_of(args)>>>(p);
    check_launch(args.op);
    return;
  }
  const int64_t packs = p.group / kEight;
  if (packs <= 4) {
    encode_packs<kBits, 4, T>(args, calls);
  } else if (packs <= 8) {
    encode_packs<kBits, 8, T>(args, calls);
  } else if (packs <= 16) {
    encode_packs<kBits, 16, T>(args, calls);
  } else if (packs <= kWarp) {
    encode_packs<kBits, kWarp, T>(args, calls);
  } else if (packs <= kMostPacks * kWarp) {
    encode_groups<kBits, kMostPacks, T>(args, calls);
  } else {
    encode_groups<kBits, 0, T>(args, calls);
  }
}

template <int kBits, typename T>
void decode(const KernelArgs& args, std::span<const Params> calls) {
  const Params& p = calls.front();
  if (has_whole_packs(p)) {
    launch(args, decode_groups_kernel<kBits, T>, calls, [](const Params& call) {
      return blocks_for(call.count, int64_t{kThreads} * kEight * kDecodedPacks);
    });
    return;
  }
  decode_kernel<kBits, T>
      <<<blocks_for(p.count, int64_t{kThreads} * kEight), kThreads, 0, stream_of(args)>>>(p);
  check_launch(args.op);
}

Params encode_params(const KernelArgs& args) {
  const auto attrs = args.attr<QuantizeAttrs>();
  Params p = params_of(attrs, args.in[0].shape);
  p.x = args.in[0].data;
  p.codes = args.out[0].as<uint8_t>();
  p.scales = args.out[1].data;
  p.rng = attrs.stochastic ? args.in[1].as<int64_t>() : nullptr;
  return p;
}

Params decode_params(const KernelArgs& args) {
  Params p = params_of(args.attr<QuantizeAttrs>(), args.out[0].shape);
  p.x = args.out[0].data;
  p.codes = args.in[0].as<uint8_t>();
  p.scales = args.in[1].data;
  return p;
}

// Calls f(first call, parameters) for each run of calls that one launch can take; `full` is a
// call's uncoded tensor.
template <typename ParamsOf, typename Full, typename F>
void for_runs(std::span<const KernelArgs> calls, ParamsOf&& params, Full&& full, F&& f) {
  for (size_t i = 0; i < calls.size();) {
    const KernelArgs& head = calls[i];
    std::vector<Params> run = {params(head)};
    const auto joins = [&](const KernelArgs& call, const Params& p) {
      return run.size() < kMostCalls && p.group == run[0].group && p.count > 0 &&
             has_whole_packs(p) && has_whole_packs(run[0]) &&
             full(call).dtype == full(head).dtype &&
             call.attr<QuantizeAttrs>().bits == head.attr<QuantizeAttrs>().bits;
    };
    for (++i; run[0].count > 0 && i < calls.size(); ++i) {
      const Params p = params(calls[i]);
      if (!joins(calls[i], p)) {
        break;
      }
      run.push_back(p);
    }
    if (run[0].count > 0) {
      f(head, std::span<const Params>(run));
    }
  }
}

}  // namespace

void quantize_encode_group_cuda(std::span<const KernelArgs> calls) {
  const auto full = [](const KernelArgs& args) { return args.in[0]; };
  for_runs(calls, encode_params, full, [&](const KernelArgs& args, std::span<const Params> run) {
    dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
      args.attr<QuantizeAttrs>().bits == 4 ? encode<4, T>(args, run) : encode<8, T>(args, run);
    });
  });
}

void quantize_decode_group_cuda(std::span<const KernelArgs> calls) {
  const auto full = [](const KernelArgs& args) { return args.out[0]; };
  for_runs(calls, decode_params, full, [&](const KernelArgs& args, std::span<const Params> run) {
    dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
      args.attr<QuantizeAttrs>().bits == 4 ? decode<4, T>(args, run) : decode<8, T>(args, run);
    });
  });
}

void quantize_encode_cuda(const KernelArgs& args) { quantize_encode_group_cuda({&args, 1}); }

void quantize_decode_cuda(const KernelArgs& args) { quantize_decode_group_cuda({&args, 1}); }

}  // namespace lithe
