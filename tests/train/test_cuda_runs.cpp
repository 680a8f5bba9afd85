// Whole runs on a GPU: against the CPU, against themselves, and what they ask of the device.
#include <doctest/doctest.h>

#include <cmath>

#include "train/image_run.h"
#include "train/input_stage.h"
#include "train/run_checks.h"
#include "train/step_runner.h"
#include "train/text_run.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

bool no_gpu() {
  if (cuda_available()) {
    return false;
  }
  MESSAGE("no CUDA device: not run");
  return true;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    INFO("step " << i);
    CHECK(a[i] == doctest::Approx(b[i]).epsilon(tolerance));
    worst = std::max(worst, std::abs(a[i] - b[i]) / std::abs(b[i]));
  }
  MESSAGE("largest relative difference of the loss: " << worst);
}

// 20 steps, each on pixels of its own, none of which waits for the one before.
void run_ahead(TinyRun& run, int64_t input_bytes) {
  const StepGraph& step = run.experiment.update_step();
  const auto shape = [&](const char* name) { return step.graph->shape(step.input(name)); };
  std::vector<Batch> batches(20);
  for (size_t i = 0; i < batches.size(); ++i) {
    const auto number = static_cast<int64_t>(i);
    batches[i].fields.push_back({"pixels", tiny_pixels(shape("pixels"), number)});
    batches[i].fields.push_back({"labels", tiny_labels(shape("labels"), number)});
  }
  StepRunner runner(run.executor, input_bytes);
  int64_t done = 0;
  for (const Batch& batch : batches) {
    runner.launch(step, run.update, batch, {.step = done, .seed = 3, .draw = done, .lr = 3e-3});
    ++done;
    while (runner.open() > runner.ahead()) {
      (void)runner.collect();
    }
  }
  while (runner.collect()) {
  }
}

const std::vector<std::string> kViTDropout = {"train.steps=100",
                                              "model.vit.hidden_dropout_prob=0.1",
                                              "model.vit.attention_probs_dropout_prob=0.1"};
const std::vector<std::string> kBf16 = {"train.compute=bf16"};

}  // namespace

TEST_CASE("CUDA: BERT and ViT learn as on the CPU, dropout masks included") {
  if (no_gpu()) {
    return;
  }
  const TextFolder files("cuda_compare");
  for (const bool rounded : {false, true}) {
    for (const char* attention : {"fused", "unfused"}) {
      CAPTURE(rounded);
      CAPTURE(attention);
      const auto more = with(rounded ? kBf16 : std::vector<std::string>{},
                             {std::string("model.attention=") + attention});
      const double tolerance = rounded ? 2e-2 : 1e-4;
      TextRun bert_cpu(files, "bert_cpu", more, RunMode::kOverwrite);
      TextRun bert_gpu(files, "bert_gpu", more, RunMode::kOverwrite, cuda_memory(0));
      check_close(losses(bert_gpu, 10), losses(bert_cpu, 10), tolerance);
      ImageRun vit_cpu(files.path / "vit_cpu", with(kViTDropout, more), RunMode::kOverwrite,
                       cpu_memory());
      ImageRun vit_gpu(files.path / "vit_gpu", with(kViTDropout, more), RunMode::kOverwrite,
                       cuda_memory(0));
      check_close(losses(vit_gpu, 10), losses(vit_cpu, 10), tolerance);
    }
  }
}

TEST_CASE("CUDA: two runs of 100 steps are bit-equal, and so is one that runs a step ahead") {
  if (no_gpu()) {
    return;
  }
  const std::atomic<bool> go{false};
  const TextFolder files("cuda_twice");
  for (const auto& more : {std::vector<std::string>{}, kBf16}) {
    const auto options = with(kViTDropout, with(more, {"train.clip_norm=1"}));
    ImageRun a(files.path / "a", options, RunMode::kOverwrite, cuda_memory(0));
    ImageRun b(files.path / "b", options, RunMode::kOverwrite, cuda_memory(0));
    losses(a, 100);
    b.trainer.run(go);
    check_same_bits(a, b);
    const auto text = with(more, {"data.group_by_length=true", "recompute.blocks=0",
                                  "freeze.patterns=*.query.*", "eval.every_steps=-1"});
    TextRun c(files, "c", text, RunMode::kOverwrite, cuda_memory(0));
    TextRun d(files, "d", text, RunMode::kOverwrite, cuda_memory(0));
    losses(c, static_cast<int>(c.trainer.total_steps()));
    d.trainer.run(go);
    check_same_bits(c, d);
  }
}

TEST_CASE("CUDA: inputs that go straight to their places leave a step as it is") {
  if (no_gpu()) {
    return;
  }
  for (const auto& compute : {std::vector<std::string>{}, kBf16}) {
    TinyRun staged(with(kViTDropout, compute), cuda_memory(0));
    TinyRun straight(with(kViTDropout, compute), cuda_memory(0));
    const int64_t bytes = InputLayout(staged.experiment.update_step()).bytes;
    run_ahead(staged, bytes);
    run_ahead(straight, 0);
    check_same_bits(staged, straight);
  }
}

TEST_CASE("CUDA: values that wait in host memory, or are computed again, leave a run as it is") {
  if (no_gpu()) {
    return;
  }
  const std::atomic<bool> go{false};
  const TextFolder files("cuda_edges");
  for (const auto& compute : {std::vector<std::string>{}, kBf16}) {
    const auto options = with(kViTDropout, compute);
    ImageRun plain(files.path / "plain", options, RunMode::kOverwrite, cuda_memory(0));
    const std::vector<double> expected = losses(plain, 20);
    for (const char* codec : {"codec.edges=any:offload", "codec.edges=any:recompute"}) {
      CAPTURE(codec);
      const auto coded = with(options, {codec, "codec.min_bytes=0"});
      ImageRun a(files.path / "a", coded, RunMode::kOverwrite, cuda_memory(0));
      // Another plan may join other products into one, which round otherwise.
      check_close(losses(a, 20), expected, compute.empty() ? 1e-4 : 2e-2);
      ImageRun b(files.path / "b", coded, RunMode::kOverwrite, cuda_memory(0));
      losses(a, 80);
      b.trainer.run(go);  // a step ahead, as a recording
      check_same_bits(a, b);
    }
  }
}

TEST_CASE("CUDA: resume is bit-equal, and a run's metrics are complete") {
  if (no_gpu()) {
    return;
  }
  const TextFolder files("cuda_resume");
  const std::vector<std::string> options = {"eval.every_steps=-1", "train.accumulate=2"};
  TextRun whole(files, "whole", options, RunMode::kNew, cuda_memory(0));
  losses(whole, 15);
  {
    TextRun first(files, "broken", options, RunMode::kNew, cuda_memory(0));
    losses(first, 4);
    const std::atomic<bool> stop{true};
    CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
  }
  TextRun second(files, "broken", options, RunMode::kResume, cuda_memory(0));
  CHECK(second.trainer.steps_done() == 5);
  losses(second, 10);
  check_same_bits(whole, second);

  TextRun logged(files, "logged", {}, RunMode::kNew, cuda_memory(0));
  const int64_t predicted = logged.experiment.memory().predicted_peak_bytes;
  const RunSummary summary = logged.run();
  CHECK(value_of(summary.metrics, "accuracy") > 0.9);
  CHECK(logged.trainer.measured_peak_bytes() <= predicted);
  CHECK(logged.trainer.measured_peak_bytes() > predicted * 99 / 100);
  std::ifstream metrics(files.path / "logged/metrics.jsonl");
  int64_t updates = 0;
  for (std::string line; std::getline(metrics, line);) {
    updates += line.find("\"loss\"") != std::string::npos ? 1 : 0;
  }
  CHECK(updates == logged.trainer.total_steps());
}

TEST_CASE("CUDA: a loss that is not finite ends the run with its own code") {
  if (no_gpu()) {
    return;
  }
  const std::atomic<bool> go{false};
  const TextFolder files("cuda_nan");
  ImageRun run(files.path / "run", {"optimizer.name=sgd", "optimizer.lr=1e30", "train.steps=20"},
               RunMode::kOverwrite, cuda_memory(0));
  CHECK_THROWS_AS(run.trainer.run(go), NumericalError);
}
