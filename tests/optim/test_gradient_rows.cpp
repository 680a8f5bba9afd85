// Gradients of embedding tables as rows against whole ones: every slot, norm and change has the
// same bits, for every optimizer, with clipping and without.
#include <doctest/doctest.h>

#include <limits>
#include <random>

#include "optim/optimizer.h"
#include "tensor/graph/executor.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/gradient_rows.h"
#include "tensor/ops/op_table.h"

namespace lithe {
namespace {

constexpr int64_t kHidden = 24;
constexpr int64_t kVocabulary = 900;  // more than one chunk of an update
constexpr int64_t kPositions = 40;

std::unique_ptr<Optimizer> optimizer_of(const std::string& text) {
  return make_optimizer(
      recipe::Recipe::parse("{" + text + ", weight_decay: 0.1}", "test", optimizer_options()));
}

// Two tables looked up by one batch: a large one with a padding row, and one smaller than a batch.
struct Lookup {
  Lookup(const std::string& optimizer_text, bool rows, double clip_norm, int64_t positions) {
    const auto optimizer = optimizer_of(optimizer_text);
    large = slots.add({.name = "large",
                       .dtype = DType::f32,
                       .shape = {kVocabulary, kHidden},
                       .init = Init::normal(0.5),
                       .trainable = true});
    small = slots.add({.name = "small",
                       .dtype = DType::f32,
                       .shape = {7, kHidden},
                       .init = Init::normal(0.5),
                       .trainable = true});
    optimizer->add_state(slots, large);
    optimizer->add_state(slots, small);
    g = std::make_unique<Graph>(slots);
    ids = g->input("ids", DType::i64, {positions});
    kinds = g->input("kinds", DType::i64, {positions});
    const ValueId y =
        add(*g, embedding(*g, g->leaf(large), ids, 0), embedding(*g, g->leaf(small), kinds));
    dy = g->input("dy", DType::f32, g->shape(y));
    gradients = build_gradients(*g, scale(*g, y, 0.5), dy,
                                std::array{g->leaf(large), g->leaf(small)}, add_op);
    if (rows) {
      replaced = use_gradient_rows(*g, gradients);
    }
    lr = g->input("lr", DType::f32, {1});
    UpdateInputs inputs{.lr = lr};
    inputs.measures.change = ChangeMetric::guarded;
    ClipOut clip;
    std::vector<UpdateOut> updates;
    if (clip_norm > 0) {
      clip = clip_factor(*g, attach_sum_squares(*g, gradients), clip_norm);
      inputs.grad_scale = clip.factor;
      updates = attach_updates(*g, gradients, *optimizer, inputs);
    } else {
      inputs.measures.squares = true;
      updates = attach_updates(*g, gradients, *optimizer, inputs);
      g->set_phase(Phase::update);
      clip = clip_factor(*g, std::array{updates[0].squares, updates[1].squares},
                         std::numeric_limits<double>::infinity());
    }
    outputs = {clip.norm, updates[0].change, updates[1].change};
    for (const ValueId v : outputs) {
      g->mark_output(v, fmt::format("output.{}", v));
    }
    g->eliminate_dead();
    verify(*g, "attaching updates");
    plan = make_plan(*g, DeviceKind::cpu);
  }

  int64_t gradient_bytes() const {
    int64_t sum = 0;
    for (const Buffer& b : plan.buffers) {
      sum += b.cls == MemoryClass::gradients ? b.bytes : 0;
    }
    return sum;
  }

  // Some steps; every slot and output of each.
  std::vector<Tensor> run() {
    Executor executor(cpu_memory(), cpu_kernel, slots);
    const Program program = executor.bind(*g, plan);
    for (SlotId s = 0; s < slots.size(); ++s) {
      executor.write_slot(s, initial_value(slots, s, 3));
    }
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<Tensor> out;
    for (int step = 0; step < 4; ++step) {
      const auto fill = [&](ValueId v, int64_t limit) {
        Tensor values(DType::i64, g->shape(v));
        for (int64_t& id : values.as<int64_t>()) {
          // Words of a text: some often.
          id = static_cast<int64_t>(random() % 3 == 0 ? random() % 5 : random() % 1000) % limit;
        }
        executor.write(program, v, values);
      };
      fill(ids, kVocabulary);
      fill(kinds, 7);
      Tensor values(DType::f32, g->shape(dy));
      for (float& value : values.as<float>()) {
        value = normal(random);
      }
      executor.write(program, dy, values);
      executor.write(program, lr, Tensor::from(Shape{1}, std::vector<float>{0.01f}));
      executor.run_poisoned(program);
      for (const ValueId v : outputs) {
        out.push_back(executor.read(program, v));
      }
      for (SlotId s = 0; s < slots.size(); ++s) {
        out.push_back(executor.read_slot(s));
      }
    }
    return out;
  }

  SlotTable slots;
  SlotId large = kNoSlot, small = kNoSlot;
  std::unique_ptr<Graph> g;
  ValueId ids = kNoValue, kinds = kNoValue, dy = kNoValue, lr = kNoValue;
  std::vector<ParameterGradient> gradients;
  std::vector<ValueId> outputs;
  Plan plan;
  int replaced = 0;
};

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::equal(a.data(), a.data() + a.bytes(), b.data());
}

}  // namespace

TEST_CASE("a gradient of rows updates a table with the bits of the whole one") {
  for (const std::string optimizer :
       {"name: adamw", "name: adamw, adamw: {epsilon: uncorrected}",
        "name: adamw, adamw: {state: int8, int8_embeddings: true}", "name: sgd, sgd: {momentum: 0}",
        "name: sgd, sgd: {momentum: 0.9, nesterov: true}"}) {
    for (const double clip_norm : {0.0, 0.5}) {
      CAPTURE(optimizer);
      CAPTURE(clip_norm);
      Lookup whole(optimizer, false, clip_norm, kPositions);
      Lookup rows(optimizer, true, clip_norm, kPositions);
      CHECK(rows.replaced == 1);  // the small table has fewer rows than the batch
      const auto planned = [](int64_t bytes) { return round_up(bytes, kArenaAlignment); };
      CHECK(whole.gradient_bytes() - rows.gradient_bytes() ==
            planned(kVocabulary * kHidden * 4) - planned(kPositions * kHidden * 4) -
                planned(kVocabulary * 4));
      const std::vector<Tensor> expected = whole.run();
      const std::vector<Tensor> got = rows.run();
      REQUIRE(expected.size() == got.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        INFO(i);
        CHECK(same_bits(expected[i], got[i]));
      }
    }
  }
}

TEST_CASE("only gradients that shrink become rows, and none that something else reads") {
  CHECK(Lookup("name: adamw", true, 0, kVocabulary).replaced == 0);
  // 24 columns: a map entry is a twenty-fourth of a row.
  CHECK(Lookup("name: adamw", true, 0, kVocabulary - kVocabulary / kHidden).replaced == 0);
  CHECK(Lookup("name: adamw", true, 0, kVocabulary - kVocabulary / kHidden - 1).replaced == 1);

  SlotTable slots;
  const SlotId table = slots.add({.name = "table",
                                  .dtype = DType::f32,
                                  .shape = {50, 8},
                                  .init = Init::normal(1),
                                  .trainable = true});
  Graph g(slots);
  const ValueId ids = g.input("ids", DType::i64, {4});
  // Twice looked up: the two gradients are added.
  const ValueId y = add(g, embedding(g, g.leaf(table), ids), embedding(g, g.leaf(table), ids));
  const ValueId dy = g.input("dy", DType::f32, {4, 8});
  std::vector<ParameterGradient> gradients =
      build_gradients(g, y, dy, std::array{g.leaf(table)}, add_op);
  CHECK(use_gradient_rows(g, gradients) == 0);
  CHECK(gradients[0].rows == kNoValue);
}

}  // namespace lithe
