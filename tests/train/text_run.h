// A tiny BERT with its own vocabulary and texts in a folder of its own: what a user would bring.
#pragma once

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tensor/core/philox.h"
#include "train/options.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace lithe::testing {

namespace fs = std::filesystem;

inline const std::vector<std::string> kWords = {"the", "a",    "film",  "was",   "is",   "very",
                                                "and", "it",   "story", "actor", "long", "short",
                                                "old", "good", "bad",   "great", "poor"};

inline void write_text(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

inline std::string random_text(uint64_t seed, uint64_t row, int words, int known) {
  std::string out;
  for (int i = 0; i < words; ++i) {
    const uint32_t word = philox(seed, row, static_cast<uint64_t>(i)).word[0];
    out += (i == 0 ? "" : " ") + kWords[word % static_cast<uint32_t>(known)];
  }
  return out;
}

// Rows whose label is whether a "good" or a "bad" stands in them; lengths vary.
inline std::string sentiment_tsv(uint64_t seed, int rows) {
  std::string out = "text\tlabel\n";
  for (int i = 0; i < rows; ++i) {
    const auto row = static_cast<uint64_t>(i);
    const bool good = i % 2 == 0;
    out += random_text(seed, row, 1 + i * 7 % 17, 13) + (good ? " good" : " bad") + " " +
           random_text(seed + 1, row, 1 + i % 3, 13) + "\t" + (good ? "positive" : "negative") +
           "\n";
  }
  return out;
}

// Removed at the end.
struct TextFolder {
  explicit TextFolder(const std::string& name)
      : path(fs::temp_directory_path() / ("lithe_test_" + name)) {
    fs::remove_all(path);
    std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    for (const std::string& word : kWords) {
      vocabulary += word + "\n";
    }
    write_text(path / "bert/vocab.txt", vocabulary);
    write_text(path / "bert/config.json", R"({"model_type": "bert", "architectures": ["BertModel"],
      "vocab_size": 22, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
      "intermediate_size": 64, "max_position_embeddings": 48, "type_vocab_size": 2,
      "initializer_range": 0.1, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
      "a_field_of_another_library": [1, 2]})");
    write_text(path / "train.tsv", sentiment_tsv(1, 90));
    write_text(path / "dev.tsv", sentiment_tsv(2, 37));
  }
  TextFolder(const TextFolder&) = delete;
  ~TextFolder() { fs::remove_all(path); }

  std::string recipe() const {
    return fmt::format(R"(
name: text
seed: 5
model: {{path: {0}/bert}}
data: {{kind: table, path: {0}/train.tsv, eval_path: {0}/dev.tsv, labels: [negative, positive],
        max_length: 32}}
train: {{batch_size: 8, epochs: 8}}
schedule: {{name: linear, warmup_steps: 10}}
optimizer: {{name: adamw, lr: 3.0e-3, weight_decay: 0.01, no_decay: ["*.bias", "*.LayerNorm.*"]}}
eval: {{batch_size: 16}}
checkpoint: {{final: false}}
)",
                       path.string());
  }

  fs::path path;
};

// One run of that recipe, up to the point where the trainer has its weights.
struct TextRun {
  TextRun(const TextFolder& files, const std::string& out,
          const std::vector<std::string>& overrides = {}, RunMode mode = RunMode::kNew,
          const std::shared_ptr<DeviceMemory>& memory = cpu_memory())
      : recipe(recipe::Recipe::parse(files.recipe(), "text.yaml", train_options(), overrides)),
        experiment(recipe, memory->kind()),
        folder(files.path / out, mode, false),
        trainer(experiment, folder, memory, open_training_data(recipe, experiment.model())) {
    if (mode == RunMode::kResume) {
      trainer.resume();
    } else {
      trainer.start(StartWeights(experiment));
    }
  }

  RunSummary run() {
    const std::atomic<bool> go{false};
    return trainer.run(go);
  }
  std::vector<Tensor> slots() { return read_slots(trainer.executor(), experiment); }

  recipe::Recipe recipe;
  Experiment experiment;
  RunFolder folder;
  Trainer trainer;
};

inline double value_of(const NamedNumbers& numbers, const std::string& name) {
  for (const auto& [key, value] : numbers) {
    if (key == name) {
      return value;
    }
  }
  throw UsageError("test", "no value '{}'", name);
}

}  // namespace lithe::testing
