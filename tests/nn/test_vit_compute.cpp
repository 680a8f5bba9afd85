// ViT in bf16 and fp64; the golden file holds PyTorch's logits of ten batches in fp32 and from the
// model converted to bf16 (tests/reference/make_vit_golden.py).
#include <doctest/doctest.h>

#include "nn/bert_golden.h"
#include "nn/pretrained.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

// Error of the logits of all batches against fp32; weights in `weights`.
double logits_error(DType weights, DType compute) {
  const SafetensorsFile golden = golden_file("vit_small");
  SlotTable slots;
  const auto model =
      nn::make_model(slots, nlohmann::json::parse(golden.metadata().at("golden")).at("config"));
  model->visit([&](const nn::Module& module) {
    for (const nn::Parameter& p : module.parameters()) {
      slots[p.slot].dtype = weights;
    }
  });
  Graph g(slots);
  const nn::ForwardOut out = model->build(g, {.batch = 6, .training = true, .compute = compute});
  const DType wanted = weights == DType::f64 ? DType::f64 : DType::f32;
  CHECK(g.dtype(out.logits) == wanted);
  CHECK(g.dtype(out.loss) == wanted);
  g.mark_output(out.logits, "logits");
  const auto grads = gradients(g, out.loss, 1.0, trainable_leaves(g));
  CHECK(grads.size() == 56);
  for (const ParameterGradient& p : grads) {
    CHECK(g.dtype(p.gradient) == weights);
    g.mark_output(p.gradient, "grad." + g.name(p.parameter));
  }
  const Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(cpu_memory(), cpu_kernel, slots);
  const Program program = executor.bind(g, plan);
  model->visit([&](const nn::Module& module) {
    for (const nn::Parameter& p : module.parameters()) {
      const Tensor value = golden.read("param." + slots[p.slot].name).to(weights);
      executor.write_slot(p.slot, nn::from_file_layout(value, p.layout));
    }
  });
  const Tensor exact = golden.read("initial_logits.f32");
  double squares = 0;
  for (int64_t i = 0; i < exact.shape()[0]; ++i) {
    for (ValueId v : g.leaves()) {
      if (g.value(v).is_input) {
        executor.write(program, v, row(golden.read("input." + g.name(v)), i));
      }
    }
    executor.run(program);
    squares += std::pow(relative_error(executor.read(program, out.logits), row(exact, i), 1), 2);
  }
  return std::sqrt(squares) / norm(exact);
}

}  // namespace

TEST_CASE("ViT's bf16 logits are as near to fp32 as PyTorch's") {
  const SafetensorsFile golden = golden_file("vit_small");
  const double peer =
      relative_error(golden.read("initial_logits.bf16"), golden.read("initial_logits.f32"));
  const double error = logits_error(DType::f32, DType::bf16);
  CHECK(error > 1e-4);  // bf16 it was
  CHECK(error < 2 * peer);
  MESSAGE(fmt::format("bf16 off by {:.2g}, PyTorch's by {:.2g}", error, peer));
}

TEST_CASE("ViT with fp64 weights computes in fp64") {
  CHECK(logits_error(DType::f64, DType::bf16) < 1e-6);
  CHECK(logits_error(DType::f32, DType::f32) < 1e-5);
}
