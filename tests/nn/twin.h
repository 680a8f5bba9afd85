// What the models' twins of tests/reference share: golden files, errors, and devices to run on.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "tensor/graph/executor.h"

namespace lithe::testing {

inline SafetensorsFile golden_file(std::string_view name) {
  return SafetensorsFile::open(
      fmt::format("{}/tests/golden/{}.safetensors", LITHE_SOURCE_DIR, name));
}

// |t| and |a - b| / scale, with |b| as the default scale; in fp64.
inline double norm(const Tensor& t) {
  const Tensor wide = t.to(DType::f64);
  double sum = 0;
  for (double v : wide.as<double>()) {
    sum += v * v;
  }
  return std::sqrt(sum);
}
inline double relative_error(const Tensor& a, const Tensor& b, double scale = 0) {
  REQUIRE(a.shape() == b.shape());
  const Tensor x = a.to(DType::f64);
  const Tensor y = b.to(DType::f64);
  double sum = 0;
  for (size_t i = 0; i < x.as<double>().size(); ++i) {
    sum += std::pow(x.as<double>()[i] - y.as<double>()[i], 2);
  }
  scale = scale > 0 ? scale : norm(b);
  return scale > 0 ? std::sqrt(sum) / scale : std::sqrt(sum);
}

// Row `index` of a stacked tensor [steps, ...].
inline Tensor row(const Tensor& stacked, int64_t index) {
  Shape shape;
  for (int i = 1; i < stacked.shape().rank(); ++i) {
    shape.push_back(stacked.shape()[i]);
  }
  Tensor out(stacked.dtype(), shape);
  std::copy_n(stacked.data() + index * out.bytes(), out.bytes(), out.data());
  return out;
}

// The devices that a twin is run on: the CPU and, where there is one, the GPU.
inline std::vector<std::shared_ptr<DeviceMemory>> twin_devices() {
  std::vector<std::shared_ptr<DeviceMemory>> out = {cpu_memory()};
  if (cuda_available()) {
    out.push_back(cuda_memory(0));
  }
  return out;
}

}  // namespace lithe::testing
