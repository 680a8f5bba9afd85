// LoRA as a pass: what it chooses, freezes and saves, what it composes with, what it refuses.
#include <doctest/doctest.h>

#include <map>
#include <set>

#include "compress/passes.h"
#include "nn/layers.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/matmul.h"
#include "train/run_checks.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

const std::vector<std::string> kLora = {"adapter.rank=2"};
const std::vector<std::string> kDropout = {"model.vit.hidden_dropout_prob=0.1",
                                           "model.vit.attention_probs_dropout_prob=0.1"};

// A run whose A matrices have their start, and whose B are not zero: all gradients count.
struct LoraRun : TinyRun {
  explicit LoraRun(const std::vector<std::string>& overrides = kLora) : TinyRun(overrides) {
    SlotTable& slots = experiment.slots();
    const PutSlot put = [&](SlotId s, const Tensor& value) {
      executor.write_slot(s, value);
      if (const SlotId copy = slots[s].copy; copy != kNoSlot) {
        executor.write_slot(copy, value.to(slots[copy].dtype));
      }
    };
    experiment.passes().start(experiment.pass_target(), put);
    for (SlotId s = 0; s < slots.size(); ++s) {
      if (slots[s].name.ends_with("lora_B.weight") && slots[s].kind == SlotKind::parameter) {
        Tensor b(DType::f32, slots[s].shape);
        for (size_t i = 0; i < b.as<float>().size(); ++i) {
          b.as<float>()[i] = 0.1f * uniform01(philox(9, static_cast<uint64_t>(s), i).word[0]);
        }
        put(s, b);
      }
    }
  }
  std::set<std::string> trained() const {
    std::set<std::string> out;
    const SlotTable& slots = experiment.model().slots();
    for (SlotId s = 0; s < slots.size(); ++s) {
      if (slots[s].kind == SlotKind::parameter && slots[s].trainable) {
        out.insert(slots[s].name);
      }
    }
    return out;
  }
  // Parameters and optimizer state after some steps, by name.
  std::map<std::string, Tensor> values(int steps) {
    for (int i = 0; i < steps; ++i) {
      step(i);
    }
    std::map<std::string, Tensor> out;
    for (SlotId s = 0; s < experiment.slots().size(); ++s) {
      out.emplace(experiment.slots()[s].name, executor.read_slot(s));
    }
    return out;
  }
};

std::map<std::string, int64_t> saved(const StepGraph& step) {
  std::map<std::string, int64_t> out;
  for (const Buffer& b : step.plan.buffers) {
    if (b.cls == MemoryClass::saved_activations) {
      out[step.graph->name(b.value)] += step.graph->bytes(b.value);
    }
  }
  return out;
}

int64_t total(const std::map<std::string, int64_t>& bytes) {
  int64_t sum = 0;
  for (const auto& [_, b] : bytes) {
    sum += b;
  }
  return sum;
}

void check_equal(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, value] : a) {
    INFO(name);
    CHECK(same_bits(value, b.at(name)));
  }
}

std::string message(const std::vector<std::string>& overrides) {
  try {
    const TinyRun run(overrides);
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::kUsage);
    return e.what();
  }
  return "";
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("LoRA trains A, B and the head; the rest has neither gradient nor state") {
  LoraRun run;
  const std::set<std::string> trained = run.trained();
  CHECK(trained.size() == 3 * 2 * 2 + 2);
  CHECK(trained.contains("vit.encoder.layer.1.attention.attention.value.lora_B.weight"));
  CHECK(trained.contains("classifier.bias"));
  const SlotTable& slots = run.experiment.slots();
  int states = 0;
  for (SlotId s = 0; s < slots.size(); ++s) {
    if (slots[s].cls == MemoryClass::optimizer) {
      ++states;
      const std::string name = slots[s].name;
      CHECK(std::any_of(trained.begin(), trained.end(),
                        [&](const std::string& p) { return name.ends_with(p); }));
    } else {
      CHECK((slots[s].cls == MemoryClass::adapters) == says(slots[s].name, ".lora_"));
    }
  }
  CHECK(states == 3 * 14);
  const auto before = run.values(0);
  const auto after = run.values(2);
  for (SlotId s = 0; s < slots.size(); ++s) {
    INFO(slots[s].name);
    if (slots[s].kind == SlotKind::parameter) {
      CHECK(same_bits(before.at(slots[s].name), after.at(slots[s].name)) !=
            trained.contains(slots[s].name));
    }
  }
  const MemoryReport report = run.experiment.memory();
  CHECK(report.peak_by_class[static_cast<size_t>(MemoryClass::adapters)] == 3 * 2 * 2 * 2 * 32 * 4);
  CHECK(report.passes.front().what ==
        "lora of rank 2; trainable params: 933 || all params: 28,549 || trainable%: 3.2681");
  CHECK(run.experiment.preview().front() == "adapter: will change 6 sites (0 refused)");
}

TEST_CASE("A starts as PEFT's, B at zero: an adapter starts as nothing") {
  TinyRun run(kLora);
  double largest = 0;
  double squares = 0;
  int64_t count = 0;
  run.experiment.passes().start(run.experiment.pass_target(), [&](SlotId s, const Tensor& value) {
    CHECK(run.experiment.slots()[s].name.ends_with("lora_A.weight"));
    for (const float v : value.as<float>()) {
      largest = std::max(largest, std::abs(static_cast<double>(v)));
      squares += static_cast<double>(v) * static_cast<double>(v);
      ++count;
    }
  });
  const double bound = 1 / std::sqrt(32.0);
  CHECK(count == 6 * 2 * 32);
  CHECK(largest < bound);
  CHECK(largest > 0.98 * bound);
  CHECK(squares / static_cast<double>(count) == doctest::Approx(bound * bound / 3).epsilon(0.1));
}

// 6 images of 10 tokens in fp32.
TEST_CASE("layers of one input save it once, and the low-rank product of each") {
  const auto bytes = [](const std::vector<std::string>& overrides) {
    LoraRun run(overrides);
    return total(saved(run.experiment.update_step()));
  };
  constexpr int64_t kLow = 6 * 10 * 2 * 4;
  constexpr int64_t kX = 6 * 10 * 32 * 4;
  const int64_t query = bytes({"adapter.rank=2", "adapter.target=query"});
  CHECK(bytes(kLora) == query + 3 * kLow);
  // A dropped input is another one for each layer.
  const int64_t dropped = bytes({"adapter.rank=2", "adapter.target=query", "adapter.dropout=0.1"});
  CHECK(bytes({"adapter.rank=2", "adapter.dropout=0.1"}) == dropped + 3 * (kLow + kX));
  // Without adapters the weights' own gradients need x of every layer.
  CHECK(query < bytes({}));
  LoraRun run;
  int inputs = 0;
  for (const auto& [name, b] : saved(run.experiment.update_step())) {
    inputs += says(name, "layernorm_before/") && b == kX ? 1 : 0;
    // What only frozen layers read is not kept.
    CHECK_FALSE((says(name, "layernorm_after/") && b >= kX));
    CHECK_FALSE(says(name, "gelu"));
  }
  CHECK(inputs == 3);
}

TEST_CASE("biases and modules that are trained along") {
  const auto trained = [](const std::vector<std::string>& more) {
    return LoraRun(with(kLora, more)).trained();
  };
  const auto only = trained({"adapter.bias=lora_only"});
  CHECK(only.size() == 12 + 6 + 2);
  CHECK(only.contains("vit.encoder.layer.0.attention.attention.query.bias"));
  CHECK_FALSE(only.contains("vit.encoder.layer.0.attention.attention.key.bias"));
  CHECK(trained({"adapter.bias=all"}).contains("vit.encoder.layer.2.layernorm_after.bias"));
  CHECK(trained({"adapter.modules_to_save=[]"}).size() == 12);
  const auto saved = trained({"adapter.modules_to_save=[classifier, vit.embeddings]"});
  CHECK(saved.contains("vit.embeddings.patch_embeddings.projection.weight"));
  // Layers trained in full get no adapter.
  const LoraRun all(with(kLora, {"adapter.target=*"}));
  CHECK(all.trained().size() == 3 * 6 * 2 + 2);
  CHECK(LoraRun(with(kLora, {"adapter.target=output.dense"})).trained().size() == 3 * 2 * 2 + 2);
  CHECK(LoraRun(with(kLora, {"adapter.target=*.1.*.query"})).trained().size() == 2 + 2);
}

TEST_CASE("an adapter composes with recompute, accumulation and clipping") {
  for (const auto& base :
       {kLora, with(kLora, kDropout), with(kLora, {"adapter.dropout=0.1", "train.clip_norm=0.5"}),
        with(kLora, {"train.compute=bf16"})}) {
    LoraRun plain(base);
    LoraRun recomputed(with(base, {"recompute.blocks=all"}));
    check_equal(plain.values(2), recomputed.values(2));
    CHECK(total(saved(recomputed.experiment.update_step())) <
          total(saved(plain.experiment.update_step())));
  }
  const LoraRun accumulated(with(kLora, {"train.accumulate=2"}));
  int gradients = 0;
  const SlotTable& slots = accumulated.experiment.model().slots();
  for (SlotId s = 0; s < slots.size(); ++s) {
    gradients += slots[s].cls == MemoryClass::gradients ? 1 : 0;
  }
  CHECK(gradients == 14);
}

TEST_CASE("codecs take the adapter's input; the forward pass stays as it is") {
  LoraRun plain;
  LoraRun coded(with(kLora, {"codec.preset=slimfit"}));
  CHECK(total(saved(coded.experiment.update_step())) <
        total(saved(plain.experiment.update_step())) / 2);
  CHECK(plain.step(0) == coded.step(0));
  LoraRun linear(with(kLora, {"codec.edges=[\"linear_input:int8/row\"]"}));
  CHECK(total(saved(linear.experiment.update_step())) <
        total(saved(plain.experiment.update_step())));
}

TEST_CASE("freezing goes on top: for good, or the adapter's own matrices in turn") {
  const LoraRun half(with(kLora, {"freeze.layers=0-1"}));
  CHECK(half.trained().size() == 2 * 2 + 2);
  const LoraRun only_b(with(kLora, {"freeze.patterns=*.lora_A.weight"}));
  CHECK(only_b.trained().size() == 6 + 2);
  LoraRun scheduled(with(kLora, {"freeze.schedule=round_robin", "freeze.fraction=0.75"}));
  const UnitSchedule* schedule = scheduled.experiment.passes().schedule();
  REQUIRE(schedule != nullptr);
  // A and B of six layers and the head's matrix; its bias is always trained.
  CHECK(schedule->units.size() == 13);
  CHECK(schedule->active == 4);
  CHECK(scheduled.trained().size() == 4 + 1);
  // Freezing the base again is no change.
  CHECK(says(LoraRun(with(kLora, {"freeze.patterns=*key*"})).experiment.preview().at(1),
             "will change 0 sites (6 refused)"));
}

TEST_CASE("base products of query, key and value still stack") {
  for (const std::string compute : {"fp32", "bf16"}) {
    const recipe::Recipe recipe = tiny_recipe({"adapter.rank=2", "train.compute=" + compute});
    Experiment experiment(recipe, DeviceKind::cuda);  // planned, not run
    int stacks = 0;
    const Graph& g = *experiment.update_step().graph;
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      stacks += g.node(n).op == &linear_stack_op ? 1 : 0;
    }
    CHECK(stacks == 3);
  }
}

TEST_CASE("bf16 computes with copies, of the adapter too") {
  LoraRun exact;
  LoraRun run(with(kLora, {"train.compute=bf16"}));
  const SlotTable& slots = run.experiment.slots();
  const std::string a = "vit.encoder.layer.0.attention.attention.query.lora_A.weight";
  const SlotId copy = slots.find("copy." + a);
  REQUIRE(copy != kNoSlot);
  CHECK(slots[copy].dtype == DType::bf16);
  CHECK(slots[copy].cls == MemoryClass::adapters);
  CHECK(slots[slots.find(a)].dtype == DType::f32);
  for (int i = 0; i < 3; ++i) {
    CHECK(run.step(i) == doctest::Approx(exact.step(i)).epsilon(0.02));
  }
  CHECK(same_bits(run.executor.read_slot(copy),
                  run.executor.read_slot(slots.find(a)).to(DType::bf16)));
}

TEST_CASE("the adapter can be taken off: weights and model are what they were, bit for bit") {
  TinyRun plain;
  LoraRun run;
  const double base = plain.step(0);
  CHECK(run.step(0) != base);
  run.step(1);  // the adapter is trained, its base is not
  const PassTarget target = run.experiment.pass_target();
  CHECK(run.experiment.passes().passes()[0]->invert(target).empty());
  CHECK(run.trained() == [&] {
    std::set<std::string> all;
    for (SlotId s = 0; s < plain.experiment.slots().size(); ++s) {
      if (plain.experiment.slots()[s].kind == SlotKind::parameter) {
        all.insert(plain.experiment.slots()[s].name);
      }
    }
    return all;
  }());
  const Graph before = [&] {
    Graph g(plain.experiment.slots());
    plain.experiment.model().build(g, {.batch = 6});
    return g;
  }();
  Graph after(run.experiment.slots());
  run.experiment.model().build(after, {.batch = 6});
  CHECK(after.node_count() == before.node_count());
  TinyRun initial;
  int compared = 0;
  run.experiment.model().visit([&](const nn::Module& module) {
    for (const nn::Parameter& p : module.parameters()) {
      const std::string& name = run.experiment.slots()[p.slot].name;
      CHECK_FALSE(says(name, "lora_"));
      if (!name.starts_with("classifier")) {
        CHECK(same_bits(module.file_value(p, [&](SlotId s) { return run.executor.read_slot(s); }),
                        initial.executor.read_slot(initial.experiment.slots().find(name))));
        ++compared;
      }
    }
  });
  CHECK(compared == 54);
}

TEST_CASE("what an adapter refuses") {
  CHECK(says(message({"adapter.target=quary"}),
             "'quary' names no linear layer of the model; the nearest is"));
  CHECK(says(message({"adapter.target=layernorm_before"}), "names no linear layer"));
  CHECK(says(message({"adapter.target=[]"}), "no layer is named"));
  CHECK(says(message({"adapter.target=classifier"}), "trained in full"));
  CHECK(says(message({"adapter.modules_to_save=score"}), "'score' names no module of the model"));
  CHECK(says(message({"adapter.rank=0"}), "adapter.rank"));
  CHECK(says(message({"adapter.path=/nowhere", "adapter.rank=4"}), "leave out one of both"));
}
