#include <cmath>

#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/quantize.h"
#include "tensor/ops/quantize_scale.h"
#include "tensor/ops/round_code.h"

namespace lithe {
namespace {

template <typename T>
float largest_magnitude(const T* x, int64_t n) {
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const float a = std::abs(static_cast<float>(x[i]));
    largest = a > largest ? a : largest;
  }
  return largest;
}

// How numbers become codes: the range, and the site's random numbers where there are any.
struct Rounding {
  float lowest = 0;
  float highest = 0;
  bool stochastic = false;
  uint64_t seed = 0;
  uint64_t stream = 0;

  Rounding(const QuantizeAttrs& attrs, const KernelArgs& args)
      : lowest(attrs.bits == 4 ? -7.0f : -127.0f), highest(-lowest), stochastic(attrs.stochastic) {
    if (stochastic) {
      const auto* rng = args.in[1].as<int64_t>();
      seed = static_cast<uint64_t>(rng[0]);
      stream = mix(attrs.key, static_cast<uint64_t>(rng[1]));
    }
  }
  // Of element i.
  template <typename T>
  uint8_t either(T x, float inverse, int64_t i) const {
    const float scaled = clamp_code(static_cast<float>(x) * inverse, lowest, highest);
    return static_cast<uint8_t>(stochastic ? random_code(scaled, code_lane(seed, stream, i))
                                           : nearest_code(scaled));
  }
};

template <typename T>
inline uint8_t nearest(T x, float inverse, float highest) {
  const float scaled = static_cast<float>(x) * inverse;
  return static_cast<uint8_t>(nearest_code(clamp_code(scaled, -highest, highest)));
}

// n elements that begin at element `first`.
template <typename T>
void encode_bytes(const T* __restrict x, uint8_t* __restrict codes, int64_t n, float inverse,
                  const Rounding& rounding, int64_t first) {
  if (rounding.stochastic) {
    for (int64_t i = 0; i < n; ++i) {
      codes[i] = rounding.either(x[i], inverse, first + i);
    }
    return;
  }
  const float highest = rounding.highest;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = nearest(x[i], inverse, highest);
  }
}

// The same in pairs; n is even.
template <typename T>
void encode_pairs(const T* __restrict x, uint8_t* __restrict codes, int64_t n, float inverse,
                  const Rounding& rounding, int64_t first) {
  if (rounding.stochastic) {
    for (int64_t i = 0; i < n; i += 2) {
      const uint32_t low = rounding.either(x[i], inverse, first + i) & 15u;
      const uint32_t high = rounding.either(x[i + 1], inverse, first + i + 1) & 15u;
      codes[i / 2] = static_cast<uint8_t>(low | (high << 4));
    }
    return;
  }
  const float highest = rounding.highest;
#pragma omp simd
  for (int64_t i = 0; i < n / 2; ++i) {
    const auto low = static_cast<uint8_t>(nearest(x[2 * i], inverse, highest) & 15u);
    const auto high = static_cast<uint8_t>(nearest(x[2 * i + 1], inverse, highest) << 4);
    codes[i] = low | high;
  }
}

// Where each element of a row has its scale.
struct ScaleOf {
  const QuantizeLayout& layout;
  int64_t operator()(int64_t i) const {
    return i / layout.columns * layout.groups_of_row + i % layout.columns / layout.group;
  }
};

// Whether no byte belongs to two groups.
bool whole_bytes(const QuantizeLayout& l, int bits) {
  return bits == 8 || (l.columns % 2 == 0 && (l.group % 2 == 0 || l.groups_of_row == 1));
}

template <typename T>
void encode(const KernelArgs& args, const QuantizeLayout& l, const QuantizeAttrs& attrs) {
  const T* x = args.in[0].as<T>();
  auto* codes = args.out[0].as<uint8_t>();
  void* scales = args.out[1].data;
  const Rounding rounding(attrs, args);
  const bool fused = whole_bytes(l, attrs.bits);
  parallel_for(l.rows * l.groups_of_row, l.group, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t column = k % l.groups_of_row * l.group;
      const int64_t first = k / l.groups_of_row * l.columns + column;
      const int64_t n = std::min(l.group, l.columns - column);
      const float scale =
          stored_scale(largest_magnitude(x + first, n), rounding.highest, attrs.scale);
      put_scale(scales, attrs.scale, k, scale);
      if (fused && attrs.bits == 8) {
        encode_bytes(x + first, codes + first, n, inverse_scale(scale), rounding, first);
      } else if (fused) {
        encode_pairs(x + first, codes + first / 2, n, inverse_scale(scale), rounding, first);
      }
    }
  });
  if (fused) {
    return;
  }
  const int64_t count = l.rows * l.columns;
  const ScaleOf scale_of{l};
  const auto code = [&](int64_t i) -> uint32_t {
    const float inverse = inverse_scale(get_scale(scales, attrs.scale, scale_of(i)));
    return rounding.either(x[i], inverse, i) & 15u;
  };
  parallel_for((count + 1) / 2, 2, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const uint32_t high = 2 * b + 1 < count ? code(2 * b + 1) : 0u;
      codes[b] = static_cast<uint8_t>(code(2 * b) | (high << 4));
    }
  });
}

template <typename T>
void decode(const KernelArgs& args, const QuantizeLayout& l, const QuantizeAttrs& attrs) {
  T* x = args.out[0].as<T>();
  const auto* bytes = args.in[0].as<uint8_t>();
  const auto* codes = args.in[0].as<int8_t>();
  const void* scales = args.in[1].data;
  parallel_for(l.rows * l.groups_of_row, l.group, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t column = k % l.groups_of_row * l.group;
      const int64_t first = k / l.groups_of_row * l.columns + column;
      const int64_t n = std::min(l.group, l.columns - column);
      const float scale = get_scale(scales, attrs.scale, k);
      if (attrs.bits == 8) {
#pragma omp simd
        for (int64_t i = first; i < first + n; ++i) {
          x[i] = T(static_cast<float>(codes[i]) * scale);
        }
      } else if (first % 2 == 0) {
#pragma omp simd
        for (int64_t i = 0; i < n / 2; ++i) {
          const uint32_t byte = bytes[first / 2 + i];
          x[first + 2 * i] = T(signed_nibble(byte) * scale);
          x[first + 2 * i + 1] = T(signed_nibble(byte >> 4) * scale);
        }
        if (n % 2 != 0) {
          x[first + n - 1] = T(signed_nibble(bytes[(first + n - 1) / 2]) * scale);
        }
      } else {
        for (int64_t i = first; i < first + n; ++i) {
          const auto byte = static_cast<uint32_t>(bytes[i / 2]);
          x[i] = T(signed_nibble(byte >> (i % 2 * 4)) * scale);
        }
      }
    }
  });
}

}  // namespace

void quantize_encode_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<QuantizeAttrs>();
  const QuantizeLayout layout(args.in[0].shape, attrs);
  dispatch_floating(args.in[0].dtype, args.op,
                    [&]<typename T>() { encode<T>(args, layout, attrs); });
}

void quantize_decode_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<QuantizeAttrs>();
  const QuantizeLayout layout(args.out[0].shape, attrs);
  dispatch_floating(args.out[0].dtype, args.op,
                    [&]<typename T>() { decode<T>(args, layout, attrs); });
}

}  // namespace lithe
