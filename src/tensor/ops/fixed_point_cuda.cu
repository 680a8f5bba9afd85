// Fixed-point codes: eight elements a thread, which are 4 or 8 bytes of codes.
#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/fixed_point.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/round_code.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kEight = 8;

template <int kBits>
constexpr int kCodeBytes = kBits;  // of eight codes

template <typename T>
__device__ inline uint32_t encode_one(T x, const FixedPointGrid& grid) {
  const float scaled = widen<float>(x) * grid.factor;
  return nearest_code(clamp_code(scaled, grid.lowest, grid.highest));
}

template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(int64_t n, FixedPointGrid grid, const T* x, uint8_t* codes) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEight;
  if (first >= n) {
    return;
  }
  if (first + kEight <= n) {
    const Pack<T, kEight> in = load<kEight>(x + first);
    Pack<uint8_t, kCodeBytes<kBits>> out;
#pragma unroll
    for (int i = 0; i < kCodeBytes<kBits>; ++i) {
      if constexpr (kBits == 8) {
        out.at[i] = static_cast<uint8_t>(encode_one(in.at[i], grid));
      } else {
        out.at[i] = static_cast<uint8_t>((encode_one(in.at[2 * i], grid) & 15u) |
                                         (encode_one(in.at[2 * i + 1], grid) << 4));
      }
    }
    store(codes + first * kBits / 8, out);
    return;
  }
  for (int64_t i = first; i < n; ++i) {
    if constexpr (kBits == 8) {
      codes[i] = static_cast<uint8_t>(encode_one(x[i], grid));
    } else if (i % 2 == 0) {
      const uint32_t high = i + 1 < n ? encode_one(x[i + 1], grid) : 0u;
      codes[i / 2] = static_cast<uint8_t>((encode_one(x[i], grid) & 15u) | (high << 4));
    }
  }
}

template <int kBits, bool kSigned>
__device__ inline float number(uint32_t code) {
  if constexpr (kBits == 4) {
    return kSigned ? signed_nibble(code) : static_cast<float>(code & 15u);
  } else {
    return kSigned ? static_cast<float>(static_cast<int8_t>(code)) : static_cast<float>(code);
  }
}

template <int kBits, bool kSigned, typename T>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(int64_t n, float step, const uint8_t* codes, T* x) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEight;
  if (first >= n) {
    return;
  }
  const auto value = [step](uint32_t code) {
    return narrow<T>(number<kBits, kSigned>(code) * step);
  };
  if (first + kEight <= n) {
    const auto in = load<kCodeBytes<kBits>>(codes + first * kBits / 8);
    Pack<T, kEight> out;
#pragma unroll
    for (int i = 0; i < kCodeBytes<kBits>; ++i) {
      if constexpr (kBits == 8) {
        out.at[i] = value(in.at[i]);
      } else {
        out.at[2 * i] = value(in.at[i]);
        out.at[2 * i + 1] = value(in.at[i] >> 4);
      }
    }
    store(x + first, out);
    return;
  }
  for (int64_t i = first; i < n; ++i) {
    x[i] = kBits == 8 ? value(codes[i]) : value(codes[i / 2] >> (i % 2 * 4));
  }
}

unsigned blocks_of(int64_t n) { return blocks_for(n, int64_t{kThreads} * kEight); }

template <int kBits, bool kSigned, typename T>
void decode(const KernelArgs& args, float step) {
  const int64_t n = args.out[0].numel();
  decode_kernel<kBits, kSigned><<<blocks_of(n), kThreads, 0, stream_of(args)>>>(
      n, step, args.in[0].as<uint8_t>(), args.out[0].as<T>());
}

}  // namespace

void fixed_point_encode_cuda(const KernelArgs& args) {
  const FixedPointGrid grid = fixed_point_grid(args.attr<FixedPointAttrs>());
  const int64_t n = args.in[0].numel();
  if (n == 0) {
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    auto* codes = args.out[0].as<uint8_t>();
    if (grid.bits == 4) {
      encode_kernel<4><<<blocks_of(n), kThreads, 0, stream_of(args)>>>(n, grid, x, codes);
    } else {
      encode_kernel<8><<<blocks_of(n), kThreads, 0, stream_of(args)>>>(n, grid, x, codes);
    }
  });
  check_launch(args.op);
}

void fixed_point_decode_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<FixedPointAttrs>();
  const FixedPointGrid grid = fixed_point_grid(attrs);
  if (args.out[0].numel() == 0) {
    return;
  }
  const float step = 1.0f / grid.factor;
  const bool is_signed = attrs.is_signed && !attrs.unit;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    if (grid.bits == 4) {
      is_signed ? decode<4, true, T>(args, step) : decode<4, false, T>(args, step);
    } else {
      is_signed ? decode<8, true, T>(args, step) : decode<8, false, T>(args, step);
    }
  });
  check_launch(args.op);
}

}  // namespace lithe
