#include "registry/fills.h"
#include "tensor/core/name_hash.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "tensor/core/convert.h"
#include "tensor/core/philox.h"

namespace lithe::registry {
namespace {

bool is_integer_fill(Fill fill) {
  return fill == Fill::ids || fill == Fill::labels || fill == Fill::mask || fill == Fill::rng ||
         fill == Fill::codes;
}

double uniform(uint64_t seed, uint64_t stream, uint64_t i) {
  return (static_cast<double>(philox(seed, stream, i).word[0]) + 0.5) / 4294967296.0;
}

double gaussian(uint64_t seed, uint64_t stream, uint64_t i) {
  const PhiloxBlock r = philox(seed, stream, i);
  const double a = (static_cast<double>(r.word[0]) + 0.5) / 4294967296.0;
  const double b = (static_cast<double>(r.word[1]) + 0.5) / 4294967296.0;
  return std::sqrt(-2 * std::log(a)) * std::cos(2 * std::numbers::pi * b);
}

// A shuffled grid. The offset of a quarter step keeps magnitudes apart too: 0.01 at least.
std::vector<double> distinct_values(size_t n, uint64_t seed, uint64_t stream) {
  std::vector<size_t> place(n);
  std::iota(place.begin(), place.end(), size_t{0});
  for (size_t i = n; i > 1; --i) {
    std::swap(place[i - 1], place[philox(seed, stream, i).word[0] % i]);
  }
  const double step = std::max(0.02, 4.0 / static_cast<double>(std::max<size_t>(n, 1)));
  std::vector<double> out(n);
  for (size_t i = 0; i < n; ++i) {
    out[i] = (static_cast<double>(place[i]) - static_cast<double>(n / 2) + 0.25) * step;
  }
  return out;
}

Tensor floating_values(const Input& input, uint64_t seed, uint64_t stream) {
  Tensor out(DType::f64, input.shape);
  auto values = out.as<double>();
  if (input.fill == Fill::distinct) {
    const std::vector<double> grid = distinct_values(values.size(), seed, stream);
    std::copy(grid.begin(), grid.end(), values.begin());
    return out;
  }
#pragma omp parallel for
  for (size_t i = 0; i < values.size(); ++i) {
    if (input.fill == Fill::positive) {
      values[i] = 0.5 + uniform(seed, stream, i);
    } else if (input.fill == Fill::ternary) {
      values[i] = std::floor(3 * uniform(seed, stream, i)) - 1;
    } else {
      const double z = gaussian(seed, stream, i);
      values[i] = input.fill == Fill::apart ? z + std::copysign(0.05, z) : z;
    }
  }
  return out;
}

Tensor integer_values(const Input& input, uint64_t seed, uint64_t stream) {
  if (input.fill == Fill::mask) {
    Tensor out(DType::boolean, input.shape);
    auto values = out.as<bool>();
    const auto row =
        static_cast<size_t>(input.shape.rank() == 0 ? 1 : std::max<int64_t>(input.shape.back(), 1));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = i % row == 0 || uniform(seed, stream, i) < 0.75;
    }
    return out;
  }
  if (input.fill == Fill::codes) {
    Tensor out(DType::u8, input.shape);
    auto values = out.as<uint8_t>();
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<uint8_t>(philox(seed, stream, i).word[0]);
    }
    return out;
  }
  Tensor out(DType::i64, input.shape);
  auto values = out.as<int64_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    const PhiloxBlock r = philox(seed, stream, i);
    const auto draw = static_cast<int64_t>(r.word[0]);
    values[i] = input.limit > 0 ? draw % input.limit : 0;
    if (input.fill == Fill::labels && r.word[1] % 4 == 0) {
      values[i] = -100;
    }
    if (input.fill == Fill::rng) {
      values[i] = i == 0 ? static_cast<int64_t>(seed) + 7 : 3;
    }
  }
  return out;
}

}  // namespace

DType input_dtype(const Input& input, DType dtype) {
  if (input.fill == Fill::mask) {
    return DType::boolean;
  }
  if (input.fill == Fill::codes) {
    return DType::u8;
  }
  if (is_integer_fill(input.fill)) {
    return DType::i64;
  }
  if (!input.follows_dtype || (input.widened && dtype_bits(dtype) == 16)) {
    return DType::f32;
  }
  return dtype;
}

bool is_differentiable(const Input& input) {
  return input.differentiable && !is_integer_fill(input.fill);
}

std::vector<Tensor> make_inputs(const Case& c, DType dtype, uint64_t seed) {
  std::vector<Tensor> out;
  const uint64_t base = name_hash(c.name) ^ name_hash(c.op->name);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Input& input = c.inputs[i];
    const uint64_t stream = mix(base, i);
    out.push_back(is_integer_fill(input.fill)
                      ? integer_values(input, seed, stream)
                      : floating_values(input, seed, stream).to(input_dtype(input, dtype)));
  }
  return out;
}

Tensor make_normal(DType dtype, const Shape& shape, uint64_t seed, uint64_t stream) {
  return floating_values({.shape = shape}, seed, stream).to(dtype);
}

std::vector<Tensor> convert_inputs(const Case& c, const std::vector<Tensor>& values, DType dtype) {
  std::vector<Tensor> out;
  for (size_t i = 0; i < values.size(); ++i) {
    out.push_back(values[i].to(input_dtype(c.inputs[i], dtype)));
  }
  return out;
}

}  // namespace lithe::registry
