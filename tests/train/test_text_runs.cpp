// Whole runs on texts: what a user with a BERT folder and a TSV file meets.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "train/text_run.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

const std::vector<std::string> kEverything = {
    "train.epochs=3",      "data.group_by_length=true", "freeze.layers=0",
    "recompute.blocks=1",  "schedule.warmup_steps=4",   "eval.every_steps=-1",
    "train.clip_norm=1.0", "schedule.name=linear"};

std::vector<std::string> with(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

template <typename E, typename F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

bool has(const std::string& text, const std::string& part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

const std::string kSquad = R"({"data": [{"title": "t", "paragraphs": [{"context":
  "the old actor was very good and the story is long", "qas": [
  {"id": "q1", "question": "is it good", "answers": [{"text": "very good", "answer_start": 18}],
   "is_impossible": false},
  {"id": "q2", "question": "was the film bad", "answers": [], "is_impossible": true},
  {"id": "q3", "question": "the story", "answers": [{"text": "long", "answer_start": 45}],
   "is_impossible": false}]}]}], "version": "2.0"})";

}  // namespace

TEST_CASE("a table of texts is learnt, and the plan is as long as the longest text") {
  const TextFolder files("text_table");
  TextRun run(files, "run", {"checkpoint.final=true"});
  // 17 words, "good", 3 words and two special tokens are 23, padded to 24.
  CHECK(run.experiment.step_options().shape.tokens == 24);
  const int64_t predicted = run.experiment.memory().predicted_peak_bytes;
  const RunSummary summary = run.run();
  CHECK(value_of(summary.metrics, "accuracy") == 1.0);
  CHECK(value_of(summary.metrics, "matthews") == 1.0);
  CHECK(run.trainer.total_steps() == 8 * 12);  // 90 rows are 11 batches of 8 and one of 2
  CHECK(run.trainer.measured_peak_bytes() <= predicted);
  CHECK(run.trainer.measured_peak_bytes() > predicted * 99 / 100);

  const fs::path model = files.path / "run/model";
  std::ifstream in(model / "config.json");
  const nlohmann::json config = nlohmann::json::parse(in);
  CHECK(config.at("architectures").at(0) == "BertForSequenceClassification");
  CHECK(config.at("id2label").at("1") == "positive");
  CHECK(config.at("a_field_of_another_library").size() == 2);
  CHECK(fs::exists(model / "vocab.txt"));
  // The folder is a model again, head and labels included.
  TextRun again(files, "again",
                {"model.path=" + model.string(), "model.weights=pretrained", "train.epochs=1"});
  CHECK(value_of(again.trainer.evaluate().metrics, "accuracy") == 1.0);
}

TEST_CASE("resume is bit-equal: dropout, both passes, batches of many lengths, mid-epoch") {
  const TextFolder files("text_resume");
  TextRun whole(files, "whole", kEverything);
  for (int i = 0; i < 27; ++i) {
    whole.trainer.step();
  }
  {
    TextRun first(files, "broken", with(kEverything, {"train.epochs=3"}));
    for (int i = 0; i < 16; ++i) {
      first.trainer.step();
    }
    const std::atomic<bool> stop{true};
    CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);  // after one more step
  }
  write_text(files.path / "fewer.tsv", sentiment_tsv(1, 80));
  const auto fewer = with(kEverything, {"data.path=" + (files.path / "fewer.tsv").string()});
  CHECK(has(message_of<UsageError>(
                [&] { const TextRun other(files, "broken", fewer, RunMode::kResume); }),
            "90 training samples"));
  TextRun second(files, "broken", kEverything, RunMode::kResume);
  CHECK(second.trainer.steps_done() == 17);
  for (int i = 0; i < 10; ++i) {
    second.trainer.step();
  }
  const auto wanted = whole.slots();
  const auto got = second.slots();
  for (size_t i = 0; i < got.size(); ++i) {
    INFO(whole.experiment.slots()[static_cast<SlotId>(i)].name);
    CHECK(same_bits(got[i], wanted[i]));
  }
}

TEST_CASE("a damaged newest checkpoint: the one before it is used, with a warning") {
  const TextFolder files("text_damaged");
  const std::vector<std::string> options = {"train.epochs=1", "checkpoint.every_steps=5",
                                            "eval.every_steps=-1", "checkpoint.keep=2"};
  {
    TextRun run(files, "run", with(options, {"checkpoint.final=true"}));
    run.run();
  }
  {
    std::fstream file(files.path / "run/checkpoints/step-12/slots.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('\x7f');
  }
  const TextRun again(files, "run", options, RunMode::kResume);
  CHECK(again.trainer.steps_done() == 10);
}

TEST_CASE("regression and questions run from files to metrics") {
  const TextFolder files("text_tasks");
  std::string scores = "text\tscore\n";
  for (uint64_t i = 0; i < 24; ++i) {
    scores += random_text(9, i, 5, 17) + "\t" + std::to_string(i % 5) + ".5\n";
  }
  write_text(files.path / "scores.tsv", scores);
  TextRun regression(
      files, "regression",
      {"data.path=" + (files.path / "scores.tsv").string(),
       "data.eval_path=" + (files.path / "scores.tsv").string(), "data.label_column=score",
       "model.task=regression", "data.labels=[]", "train.epochs=60"});
  const RunSummary fitted = regression.run();
  CHECK(value_of(fitted.metrics, "pearson") > 0.9);
  CHECK(value_of(fitted.metrics, "mse") < 0.5);

  write_text(files.path / "squad.json", kSquad);
  TextRun squad(files, "squad",
                {"data.kind=squad", "data.path=" + (files.path / "squad.json").string(),
                 "data.eval_path=" + (files.path / "squad.json").string(), "data.stride=4",
                 "data.labels=[]", "train.epochs=150", "train.batch_size=3"});
  CHECK(squad.experiment.model().task() == nn::Task::span);
  const RunSummary answered = squad.run();
  CHECK(value_of(answered.metrics, "exact") == 100.0);
  CHECK(value_of(answered.metrics, "no_answer_f1") == 100.0);
}

TEST_CASE("bf16 compute follows fp32 within its rounding, with fp32 weights and state") {
  const TextFolder files("text_bf16");
  const std::vector<std::string> options = {"model.bert.hidden_dropout_prob=0",
                                            "model.bert.attention_probs_dropout_prob=0",
                                            "eval.every_steps=-1"};
  TextRun exact(files, "fp32", options);
  TextRun rounded(files, "bf16", with(options, {"train.compute=bf16"}));
  const Slot& slot = rounded.experiment.slots()[0];
  CHECK(slot.dtype == DType::f32);
  double exact_loss = 0;
  double rounded_loss = 0;
  for (int i = 0; i < 70; ++i) {
    exact_loss = exact.trainer.step();
    rounded_loss = rounded.trainer.step();
    if (i == 0) {
      // One forward of two blocks: a few roundings of 2^-9.
      CHECK(rounded_loss == doctest::Approx(exact_loss).epsilon(0.02));
      CHECK(rounded_loss != exact_loss);
    }
  }
  CHECK(exact_loss < 0.1);
  CHECK(rounded_loss < 0.1);
  // Saved activations are half as large.
  const auto saved = [](TextRun& run) {
    const MemoryReport report = run.experiment.memory();
    return report.peak_by_class[static_cast<size_t>(MemoryClass::saved_activations)];
  };
  CHECK(saved(rounded) < saved(exact) * 6 / 10);
}

TEST_CASE("a loss that is not finite names the first value that went wrong and keeps the weights") {
  const TextFolder files("text_nan");
  TextRun run(files, "run");
  const SlotTable& slots = run.experiment.slots();
  const SlotId bad = slots.find("bert.encoder.layer.1.output.dense.weight");
  Tensor weight = run.trainer.executor().read_slot(bad);
  std::fill(weight.as<float>().begin(), weight.as<float>().end(), 3e38f);
  run.trainer.executor().write_slot(bad, weight);
  const auto before = run.slots();
  const std::string text = message_of<NumericalError>([&] { run.trainer.step(); });
  CHECK(has(text, "bert.encoder.layer.1.output.dense"));
  CHECK(has(text, "linear"));
  const auto after = run.slots();
  for (size_t i = 0; i < before.size(); ++i) {
    CHECK(same_bits(before[i], after[i]));
  }
}

TEST_CASE("what does not fit together is refused with the way out") {
  const TextFolder files("text_refused");
  const auto refusal = [&](const std::vector<std::string>& overrides) {
    return message_of<Error>([&] { const TextRun run(files, "run", overrides); });
  };
  CHECK(has(refusal({"data.labels=[good]"}), "two or more"));
  CHECK(has(refusal({"data.labels=[good, poor]"}), "positive"));
  CHECK(has(refusal({"data.labels=[]", "model.bert.num_labels=3"}), "data.labels"));
  CHECK(has(refusal({"data.eval_path=\"\""}), "eval.every_steps=-1"));
  CHECK(has(refusal({"data.max_length=64"}), "at most 48"));
  CHECK(has(refusal({"data.kind=idx"}), "takes texts"));
  CHECK(has(refusal({"data.kind=squad", "model.task=classification"}), "data.kind"));
  CHECK(has(refusal({"data.text_column=body"}), "text"));
  CHECK(has(refusal({"model.weights=pretrained"}), "model.safetensors"));
  CHECK(has(refusal({"data.tokenizer=" + (files.path / "nothing").string()}), "nothing"));
  fs::remove(files.path / "bert/vocab.txt");
  CHECK(has(refusal({}), "tokenizer"));
}
