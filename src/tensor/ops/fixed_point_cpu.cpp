#include "tensor/core/tensor.h"
#include "tensor/ops/fixed_point.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/round_code.h"

namespace lithe {
namespace {

// The range as single numbers: loops over a struct of it are not vectorised.
inline uint8_t encode_one(float x, float factor, float lowest, float highest) {
  return static_cast<uint8_t>(nearest_code(clamp_code(x * factor, lowest, highest)));
}

template <typename T>
void encode_bytes(const T* x, uint8_t* codes, int64_t n, float factor, float lowest,
                  float highest) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = encode_one(static_cast<float>(x[i]), factor, lowest, highest);
  }
}

// n pairs.
template <typename T>
void encode_pairs(const T* x, uint8_t* codes, int64_t n, float factor, float lowest,
                  float highest) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const auto low = static_cast<uint8_t>(
        encode_one(static_cast<float>(x[2 * i]), factor, lowest, highest) & 15u);
    const auto high = static_cast<uint8_t>(
        encode_one(static_cast<float>(x[2 * i + 1]), factor, lowest, highest) << 4);
    codes[i] = low | high;
  }
}

template <typename T>
void encode(const T* x, uint8_t* codes, int64_t n, const FixedPointGrid& grid) {
  if (grid.bits == 8) {
    parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      encode_bytes(x + begin, codes + begin, end - begin, grid.factor, grid.lowest, grid.highest);
    });
    return;
  }
  parallel_for(n / 2, 2, [&](int64_t begin, int64_t end) {
    encode_pairs(x + 2 * begin, codes + begin, end - begin, grid.factor, grid.lowest, grid.highest);
  });
  if (n % 2 != 0) {
    const auto last = static_cast<float>(x[n - 1]);
    codes[n / 2] = encode_one(last, grid.factor, grid.lowest, grid.highest) & 15u;
  }
}

template <typename C, typename T>
void decode(const C* codes, T* x, int64_t n, float step) {
  parallel_for(n, 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      x[i] = T(static_cast<float>(codes[i]) * step);
    }
  });
}

template <bool kSigned, typename T>
void decode_pairs(const uint8_t* codes, T* x, int64_t n, float step) {
  const auto number = [](uint32_t code) {
    return kSigned ? signed_nibble(code) : static_cast<float>(code & 15u);
  };
  parallel_for(n / 2, 2, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      x[2 * i] = T(number(codes[i]) * step);
      x[2 * i + 1] = T(number(static_cast<uint32_t>(codes[i] >> 4)) * step);
    }
  });
  if (n % 2 != 0) {
    x[n - 1] = T(number(codes[n / 2]) * step);
  }
}

}  // namespace

void fixed_point_encode_cpu(const KernelArgs& args) {
  const FixedPointGrid grid = fixed_point_grid(args.attr<FixedPointAttrs>());
  const int64_t n = args.in[0].numel();
  auto* codes = args.out[0].as<uint8_t>();
  dispatch_floating(args.in[0].dtype, args.op,
                    [&]<typename T>() { encode(args.in[0].as<T>(), codes, n, grid); });
}

void fixed_point_decode_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<FixedPointAttrs>();
  const FixedPointGrid grid = fixed_point_grid(attrs);
  const int64_t n = args.out[0].numel();
  const float step = 1.0f / grid.factor;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    T* x = args.out[0].as<T>();
    const auto* bytes = args.in[0].as<uint8_t>();
    if (grid.bits == 4) {
      attrs.is_signed ? decode_pairs<true>(bytes, x, n, step)
                      : decode_pairs<false>(bytes, x, n, step);
    } else if (args.in[0].dtype == DType::i8) {
      decode(args.in[0].as<int8_t>(), x, n, step);
    } else {
      decode(bytes, x, n, step);
    }
  });
}

}  // namespace lithe
