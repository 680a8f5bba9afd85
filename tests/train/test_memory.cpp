// The plan against what really happens: planned peak = measured peak, and no value is read before
// it was written or after it died.
#include <doctest/doctest.h>

#include <numeric>

#include "train/input_stage.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

const std::vector<std::vector<std::string>> kVariants = {
    {},
    {"freeze.layers=0-1", "freeze.patterns=vit.embeddings.*"},
    {"recompute.blocks=all"},
    {"model.attention=unfused"},
    {"train.clip_norm=0.5"},
    {"train.accumulate=3"},
    {"model.vit.hidden_dropout_prob=0.1", "model.vit.attention_probs_dropout_prob=0.1",
     "recompute.blocks=0-1", "freeze.patterns=*query.weight"},
    {"codec.edges=any:offload"},
};

}  // namespace

TEST_CASE("planned peak is the measured peak, within 1 % and to the alignment") {
  for (const auto& overrides : kVariants) {
    CAPTURE(fmt::format("{}", fmt::join(overrides, " ")));
    TinyRun run(overrides);
    const MemoryReport report = run.experiment.memory();
    CHECK(run.executor.memory().peak_bytes() == report.predicted_peak_bytes);

    constexpr uint8_t kMark = 0xa5;
    run.executor.mark_arena(kMark);
    run.step(0);
    const int64_t touched = run.executor.touched_arena_bytes(kMark);
    const int64_t planned = run.experiment.update_step().plan.arena_bytes;
    CHECK(touched <= planned);
    // The last buffer may end in padding up to the alignment.
    CHECK(planned - touched < kArenaAlignment);
    CHECK(std::accumulate(report.peak_by_class.begin(), report.peak_by_class.end(), int64_t{0}) ==
          report.predicted_peak_bytes);
  }
}

TEST_CASE("the report's offsets of weights and state are where the executor has them") {
  TinyRun run;
  const MemoryReport report = run.experiment.memory();
  const SlotTable& slots = run.experiment.slots();
  int found = 0;
  const std::byte* start = nullptr;
  for (const PlannedValue& value : report.values) {
    const SlotId slot = value.first < 0 ? slots.find(value.name) : kNoSlot;
    if (slot != kNoSlot) {
      const auto* at = static_cast<const std::byte*>(run.executor.slot(slot).data);
      start = start == nullptr ? at - value.offset : start;
      CHECK(at - start == value.offset);
      ++found;
    }
  }
  CHECK(found == slots.size());
}

TEST_CASE("freezing and recompute lower the planned peak, as the plan says before the run") {
  const int64_t full = TinyRun().experiment.memory().predicted_peak_bytes;
  const int64_t frozen = TinyRun({"freeze.layers=0-1", "freeze.patterns=vit.embeddings.*"})
                             .experiment.memory()
                             .predicted_peak_bytes;
  const int64_t recomputed =
      TinyRun({"recompute.blocks=all"}).experiment.memory().predicted_peak_bytes;
  CHECK(frozen < full);
  CHECK(recomputed < full);
}

TEST_CASE("a poisoned arena gives the same bits: nothing is read outside of its life") {
  for (const auto& overrides : kVariants) {
    CAPTURE(fmt::format("{}", fmt::join(overrides, " ")));
    TinyRun plain(overrides);
    TinyRun poisoned(overrides);
    const StepGraph& step = poisoned.experiment.update_step();
    for (int i = 0; i < 2; ++i) {
      plain.step(i);
      poisoned.executor.mark_arena(0xff);
      poisoned.feed(poisoned.update, step, i);
      poisoned.executor.run_poisoned(poisoned.update);
    }
    CHECK(same_bits(plain.executor.read(plain.update, plain.experiment.update_step().loss),
                    poisoned.executor.read(poisoned.update, step.loss)));
    for (SlotId s = 0; s < plain.experiment.slots().size(); ++s) {
      INFO(plain.experiment.slots()[s].name);
      CHECK(same_bits(plain.executor.read_slot(s), poisoned.executor.read_slot(s)));
    }
  }
}

TEST_CASE("no two buffers that live together overlap in the plans of a training step") {
  for (const auto& overrides : kVariants) {
    TinyRun run(overrides);
    for (const StepGraph* step : run.experiment.steps()) {
      const auto& buffers = step->plan.buffers;
      for (size_t a = 0; a < buffers.size(); ++a) {
        for (size_t b = a + 1; b < buffers.size(); ++b) {
          const bool together =
              buffers[a].first <= buffers[b].last && buffers[b].first <= buffers[a].last;
          const bool overlap = buffers[a].offset < buffers[b].offset + buffers[b].bytes &&
                               buffers[b].offset < buffers[a].offset + buffers[a].bytes;
          CHECK_FALSE((together && overlap));
        }
      }
      CHECK(step->plan.arena_bytes <= step->plan.naive_bytes);
      CHECK(step->plan.arena_bytes >= step->plan.live_peak_bytes);
    }
  }
}

TEST_CASE("the dry run of ViT-B/16 needs no device and its classes add up to the peak") {
  const recipe::Recipe recipe = recipe::Recipe::load(
      std::string(LITHE_SOURCE_DIR) + "/configs/bench/vit_b16.yaml", train_options(), {});
  Experiment experiment(recipe, DeviceKind::cpu);
  const MemoryReport report = experiment.memory();
  int64_t parameters = 0;
  for (SlotId s = 0; s < experiment.slots().size(); ++s) {
    if (experiment.slots()[s].kind == SlotKind::parameter) {
      parameters += experiment.slots()[s].shape.numel();
    }
  }
  CHECK(parameters == 86567656);  // ViT-B/16 with 1,000 classes
  CHECK(report.peak_by_class[static_cast<size_t>(MemoryClass::weights)] >= 4 * parameters);
  CHECK(std::accumulate(report.peak_by_class.begin(), report.peak_by_class.end(), int64_t{0}) ==
        report.predicted_peak_bytes);
}

TEST_CASE("the gradient of BERT-base's word embeddings is planned as the rows of a batch") {
  const auto gradient_bytes = [](const std::string& fuse) {
    Experiment experiment(recipe::Recipe::load(LITHE_SOURCE_DIR "/configs/bench/bert_base_cls.yaml",
                                               train_options(), std::array{"train.fuse=" + fuse}),
                          DeviceKind::cpu);
    const StepGraph& step = experiment.update_step();
    int64_t sum = 0;
    for (const Buffer& b : step.plan.buffers) {
      const bool words =
          b.value != kNoValue && step.graph
                                         ->node_name(step.graph->value(b.value).producer == kNoNode
                                                         ? step.graph->first()
                                                         : step.graph->value(b.value).producer)
                                         .find("word_embeddings") != std::string::npos;
      sum += words && b.cls == MemoryClass::gradients ? b.bytes : 0;
    }
    return sum;
  };
  constexpr int64_t kVocabulary = 30522;
  constexpr int64_t kHidden = 768;
  CHECK(gradient_bytes("false") == round_up(kVocabulary * kHidden * 4, kArenaAlignment));
  CHECK(gradient_bytes("true") ==
        32 * 128 * kHidden * 4 + round_up(kVocabulary * 4, kArenaAlignment));
}

TEST_CASE("inputs wait in a block of their own where a copy between the steps would cost time") {
  // 128 images of 384 x 384 in fp32, through a ViT-B/16 forward and back.
  constexpr int64_t kImages = int64_t{128} * 3 * 384 * 384 * 4;
  constexpr double kFlops = 28e12;
  CHECK_FALSE(is_worth_staging(kImages, {.other = kFlops}));
  CHECK(is_worth_staging(kImages, {.half = kFlops}));
  CHECK(is_worth_staging(kImages, {.tf32 = kFlops}));
  CHECK(is_worth_staging(kImages, {.other = kFlops / 4}));
  CHECK(is_worth_staging(1 << 20, {.other = kFlops}));  // costs no memory worth the name

  TinyRun run;
  const StepGraph& step = run.experiment.update_step();
  CHECK(input_stage_bytes(step, DeviceKind::cpu) == 0);
  CHECK(input_stage_bytes(step, DeviceKind::cuda) == InputLayout(step).bytes);
}
