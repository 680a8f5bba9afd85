// Every op case of tests/golden/ops.safetensors, made by PyTorch in fp64 (tests/reference/).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/op_table.h"
#include "tensor/ops/softmax.h"

using namespace lithe;
using Json = nlohmann::json;

namespace {

PoolAttrs pool_attrs(const Json& a) {
  const int k = a.at("kernel");
  const int s = a.at("stride");
  const int p = a.at("padding");
  return {.kernel_h = k, .kernel_w = k, .stride_h = s, .stride_w = s, .pad_h = p, .pad_w = p};
}

// Emits the case's op; kNoValue for an op that this test does not know.
ValueId emit(Graph& g, const std::string& op, const Json& a, std::span<const ValueId> in) {
  if (op == "conv2d") {
    const int stride = a.at("stride");
    const int padding = a.at("padding");
    return conv2d(g, in[0], in[1], in[2],
                  {.stride_h = stride,
                   .stride_w = stride,
                   .pad_h = padding,
                   .pad_w = padding,
                   .groups = a.at("groups")});
  }
  if (op == "avg_pool2d") {
    return avg_pool2d(g, in[0], pool_attrs(a));
  }
  if (op == "max_pool2d") {
    return max_pool2d(g, in[0], pool_attrs(a));
  }
  if (op == "group_norm") {
    return group_norm(g, in[0], in[1], in[2], a.at("groups"), a.at("eps"));
  }
  if (op == "layer_norm") {
    return layer_norm(g, in[0], in[1], in[2], a.at("eps"));
  }
  if (op == "rms_norm") {
    return rms_norm(g, in[0], in[1], a.at("eps"));
  }
  if (op == "upsample_nearest") {
    return upsample_nearest(g, in[0], a.at("scale"));
  }
  if (op == "pixel_unshuffle") {
    return pixel_unshuffle(g, in[0], a.at("factor"));
  }
  if (op == "gelu") {
    const bool exact = a.at("approximate") == "none";
    return activation(g, in[0], exact ? Activation::gelu : Activation::gelu_tanh);
  }
  if (op == "silu") {
    return activation(g, in[0], Activation::silu);
  }
  if (op == "softmax") {
    return softmax(g, in[0]);
  }
  if (op == "cross_entropy") {
    return cross_entropy(g, in[0], in[1], {.ignore_index = a.at("ignore_index")});
  }
  if (op == "mse") {
    return mse(g, in[0], in[1]);
  }
  if (op == "embedding") {
    return embedding(g, in[1], in[0]);
  }
  if (op == "attention") {
    return attention(g, in[0], in[1], in[2], {.scale = a.at("scale"), .causal = a.at("causal")},
                     in.size() > 3 ? in[3] : kNoValue);
  }
  return kNoValue;
}

// |a - b| / |b|, L2; infinite unless all of a is finite.
double relative_error(const Tensor& a, const Tensor& b, double factor) {
  const Tensor x = a.to(DType::f64);
  double error = 0;
  double norm = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double got = x.as<double>()[static_cast<size_t>(i)] * factor;
    const double want = b.as<double>()[static_cast<size_t>(i)];
    error += (got - want) * (got - want);
    norm += want * want;
  }
  return std::isfinite(error) ? std::sqrt(error / std::max(norm, 1e-300)) : INFINITY;
}

class GoldenCase {
 public:
  GoldenCase(const SafetensorsFile& file, std::string name, const Json& description)
      : file_(file), name_(std::move(name)), description_(description) {}

  void check(DType dtype, double tolerance) {
    SlotTable slots;
    Graph g(slots);
    std::vector<ValueId> in;
    std::vector<Tensor> data;
    const size_t count = description_.at("inputs").size();
    double largest = 0;
    for (size_t i = 0; i < count; ++i) {
      Tensor t = file_.read(fmt::format("{}.in.{}", name_, i));
      data.push_back(is_floating(t.dtype()) ? t.to(dtype) : t);
      for (int64_t k = 0; is_floating(t.dtype()) && k < t.numel(); ++k) {
        largest = std::max(largest, std::abs(t.as<double>()[static_cast<size_t>(k)]));
      }
      in.push_back(g.input(fmt::format("in.{}", i), data.back().dtype(), data.back().shape()));
    }
    if (dtype == DType::f32) {
      // An input is off by this at most; the softmax of 800 feels it as it is.
      tolerance += largest * 0x1p-24;
    }
    const ValueId y = emit(g, description_.at("op"), description_.at("attributes"), in);
    REQUIRE_MESSAGE(y != kNoValue, "no op called " << description_.at("op"));
    g.mark_output(y, "y");
    const ValueId dy = g.input("dy", g.dtype(y), g.shape(y));
    std::vector<ValueId> wanted;
    std::vector<std::string> wanted_names;
    for (size_t i = 0; i < count; ++i) {
      // The target of a mean squared error has no gradient here.
      const std::string din = fmt::format("{}.din.{}", name_, i);
      if (file_.contains(din) && description_.at("inputs")[i] != "target") {
        wanted.push_back(in[i]);
        wanted_names.push_back(din);
      }
    }
    const auto found = build_gradients(g, y, dy, wanted, add_op);
    REQUIRE(found.size() == wanted.size());
    for (const ParameterGradient& p : found) {
      g.mark_output(p.gradient, "gradient");
    }
    verify(g, "golden");
    const Plan plan = make_plan(g, DeviceKind::cpu);
    Executor executor(cpu_memory(), cpu_kernel, slots);
    const Program program = executor.bind(g, plan);
    for (size_t i = 0; i < count; ++i) {
      executor.write(program, in[i], data[i]);
    }
    const Tensor dout = file_.read(name_ + ".dout.0").to(g.dtype(y)).reshaped(g.shape(y));
    executor.write(program, dy, dout);
    executor.run_poisoned(program);
    expect(executor.read(program, y), name_ + ".out.0", tolerance);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto at = std::find_if(found.begin(), found.end(),
                                   [&](const auto& p) { return p.parameter == wanted[i]; });
      expect(executor.read(program, at->gradient), wanted_names[i], tolerance);
    }
  }

 private:
  void expect(const Tensor& got, const std::string& golden, double tolerance) {
    const Tensor want = file_.read(golden);
    REQUIRE(got.shape() == want.shape());
    const double error = relative_error(got, want, factor_);
    CHECK_MESSAGE(error <= tolerance, golden << ": relative error " << error);
  }

 protected:
  const SafetensorsFile& file_;
  std::string name_;
  const Json& description_;
  double factor_ = 1;
};

// PyTorch's mean over rows becomes its sum when multiplied by the rows that count.
class SummedCase : public GoldenCase {
 public:
  SummedCase(const SafetensorsFile& file, std::string name, const Json& description)
      : GoldenCase(file, std::move(name), description) {
    const Tensor labels = file_.read(name_ + ".in.1");
    const auto values = labels.as<int64_t>();
    factor_ = static_cast<double>(
        std::count_if(values.begin(), values.end(), [](int64_t v) { return v != -100; }));
  }
};

}  // namespace

TEST_CASE("forward and gradients of every golden op case, in fp64 and fp32") {
  const SafetensorsFile file =
      SafetensorsFile::open(LITHE_SOURCE_DIR "/tests/golden/ops.safetensors");
  const Json golden = Json::parse(file.metadata().find("golden")->second);
  int checked = 0;
  for (const auto& [name, description] : golden.at("cases").items()) {
    CAPTURE(name);
    // Lithe's pools count padded positions in no average; the other convention does not exist here.
    const Json& a = description.at("attributes");
    if (a.value("count_include_pad", false) && a.at("padding") != 0) {
      continue;
    }
    // fp64: rounding of sums in another order. fp32: some roundings of 6e-8 each; besides, `check`
    // allows what rounding the inputs does to them.
    constexpr double kDouble = 1e-10;
    constexpr double kSingle = 2e-6;
    if (a.value("reduction", "") == "sum") {
      SummedCase(file, name, description).check(DType::f64, kDouble);
      SummedCase(file, name, description).check(DType::f32, kSingle);
    } else {
      GoldenCase(file, name, description).check(DType::f64, kDouble);
      GoldenCase(file, name, description).check(DType::f32, kSingle);
    }
    ++checked;
  }
  CHECK(checked == static_cast<int>(golden.at("cases").size()) - 1);
}
