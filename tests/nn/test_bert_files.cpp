// BERT's weights and Hugging Face files: the dialects of names, what is refused, and what is
// written. With LITHE_EXPORT=FOLDER the models written stay there for
// tests/reference/check_export.py.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "io/temp_folder.h"
#include "nn/bert_golden.h"
#include "nn/pretrained.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT
namespace fs = std::filesystem;

namespace {

using Rename = std::function<std::string(const std::string&)>;

// A model folder with the golden weights of classification under other names; "" leaves one out.
SafetensorsFolder renamed_folder(const TempFolder& folder, const GoldenBert& bert,
                                 const Rename& rename, std::vector<NamedTensor> more = {}) {
  for (SlotId slot : bert.parameters) {
    if (std::string name = rename(bert.name(slot)); !name.empty()) {
      more.push_back({std::move(name), bert.initial(bert.name(slot))});
    }
  }
  write_safetensors(folder.path() / "model.safetensors", more);
  return SafetensorsFolder::open(folder.path());
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  if (const size_t at = text.find(from); at != std::string::npos) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string same_name(const std::string& name) { return name; }
std::string bare_name(const std::string& name) {
  return name.starts_with("bert.") ? name.substr(5) : "";
}
std::string old_name(const std::string& name) {
  return replaced(replaced(name, "LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.bias",
                  "LayerNorm.beta");
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::equal(a.data(), a.data() + a.bytes(), b.data());
}

}  // namespace

TEST_CASE("three dialects of BERT's names load, position ids are passed over") {
  const GoldenBert bert("classification");
  const std::vector<std::string> head = {"classifier.weight", "classifier.bias"};
  const std::array<int64_t, 14> positions = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
  const Tensor ids = Tensor::from<int64_t>({1, 14}, positions);
  struct Dialect {
    const char* name;
    Rename rename;
    const char* constant;
    std::vector<std::string> missing;
  };
  const std::vector<Dialect> dialects = {
      {"today's", same_name, "bert.embeddings.position_ids", {}},
      {"first releases'", old_name, "bert.embeddings.position_ids", {}},
      {"bare model", bare_name, "embeddings.position_ids", head},
      {"bare model of the first releases",
       [](const std::string& name) { return old_name(bare_name(name)); }, "embeddings.position_ids",
       head},
  };
  for (const Dialect& dialect : dialects) {
    CAPTURE(std::string(dialect.name));
    const TempFolder folder;
    const SafetensorsFolder file =
        renamed_folder(folder, bert, dialect.rename, {{dialect.constant, ids}});
    const nn::NameMatch match = nn::match_names(*bert.model, file);
    CHECK(match.matched.size() == 57 - dialect.missing.size());
    CHECK(match.missing == dialect.missing);
    CHECK(match.unexpected.empty());
    size_t loaded = 0;
    nn::load_weights(*bert.model, file, match.matched, [&](SlotId slot, const Tensor& value) {
      CHECK(same_bits(value, bert.initial(bert.name(slot))));
      ++loaded;
    });
    CHECK(loaded == match.matched.size());
  }
}

TEST_CASE("two tensors of a file that are one parameter are refused") {
  const GoldenBert bert("classification");
  const TempFolder folder;
  const SafetensorsFolder file = renamed_folder(
      folder, bert, same_name,
      {{"embeddings.LayerNorm.gamma", bert.initial("bert.embeddings.LayerNorm.weight")}});
  const std::string error =
      message_of<FileError>([&] { (void)nn::match_names(*bert.model, file); });
  INFO(error);
  CHECK(error.find("'bert.embeddings.LayerNorm.weight'") != std::string::npos);
  CHECK(error.find("'embeddings.LayerNorm.gamma'") != std::string::npos);
}

TEST_CASE("missing and unexpected names say the nearest of the other side") {
  const GoldenBert bert("classification");
  const TempFolder folder;
  const SafetensorsFolder file = renamed_folder(folder, bert, [](const std::string& name) {
    return name == "bert.pooler.dense.bias" ? "" : replaced(name, "layer.1.", "layers.1.");
  });
  const nn::NameMatch match = nn::match_names(*bert.model, file);
  CHECK(match.missing.size() == 17);  // a block and the pooler's bias
  CHECK(match.unexpected.size() == 16);
  const std::string mine = "bert.encoder.layer.1.attention.self.query.weight";
  const std::string theirs = "bert.encoder.layers.1.attention.self.query.weight";
  CHECK(match.nearest.at(mine) == theirs);
  CHECK(match.nearest.at(theirs) == mine);
  for (const std::string& name : match.unexpected) {
    CHECK(replaced(name, "layers.1.", "layer.1.") == match.nearest.at(name));
  }
  CHECK(nn::with_nearest({mine}, match).front() == mine + " (nearest: " + theirs + ")");
  CHECK(nn::with_nearest({"unknown"}, match).front() == "unknown");
}

TEST_CASE("a thousand names that all differ find their nearest in a moment") {
  GoldenBert bert("classification", {{"num_hidden_layers", 64}, {"hidden_size", 4}});
  const TempFolder folder;
  std::vector<NamedTensor> tensors;
  const Tensor one(DType::f32, {1});
  for (SlotId slot : bert.parameters) {
    tensors.push_back({"model." + bert.name(slot) + "s", one});
  }
  REQUIRE(tensors.size() == 1033);
  write_safetensors(folder.path() / "model.safetensors", tensors);
  const SafetensorsFolder file = SafetensorsFolder::open(folder.path());
  const auto start = std::chrono::steady_clock::now();
  const nn::NameMatch match = nn::match_names(*bert.model, file);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  MESSAGE(fmt::format("{:.0f} ms for {} names", took.count() * 1e3, tensors.size()));
  CHECK(took.count() < 2.0);  // all pairs are fifty times as many edit distances
  REQUIRE(match.missing.size() == 1033);
  size_t right = 0;
  for (const std::string& name : match.missing) {
    const auto found = match.nearest.find(name);
    right += found != match.nearest.end() && found->second == "model." + name + "s" ? 1 : 0;
  }
  CHECK(right == 1031);  // all but the two of the classifier, whose names are too short
}

TEST_CASE("a shape that does not fit names the tensor and both shapes") {
  const GoldenBert bert("classification");
  const GoldenBert wider("classification", {{"vocab_size", 61}});
  const TempFolder folder;
  const SafetensorsFolder file = renamed_folder(folder, bert, bare_name);
  const std::string error = message_of<FileError>([&] {
    nn::load_weights(*wider.model, file, {"bert.embeddings.word_embeddings.weight"},
                     [](SlotId, const Tensor&) {});
  });
  INFO(error);
  CHECK(error.find("bert.embeddings.word_embeddings.weight") != std::string::npos);
  CHECK(error.find("60") != std::string::npos);
  CHECK(error.find("61") != std::string::npos);
}

TEST_CASE("a saved BERT has its configuration and loads again bit for bit") {
  const char* kept = std::getenv("LITHE_EXPORT");
  for (const std::string task : {"classification", "regression", "span"}) {
    CAPTURE(task);
    GoldenBert bert(task);
    const GoldenStep step(bert, golden_options(), false);
    const TempFolder temporary;
    const fs::path folder = kept == nullptr ? temporary.path() : fs::path(kept) / task;
    nn::save_weights(*bert.model, folder,
                     [&](SlotId slot) { return step.executor.read_slot(slot); });
    if (kept != nullptr) {
      std::vector<NamedTensor> seen = {{"logits", step.read(step.out.logits)}};
      for (const char* input : {"input_ids", "token_type_ids", "attention_mask"}) {
        seen.push_back({input, bert.input(input, 0)});
      }
      write_safetensors(fs::path(kept) / (task + ".safetensors"), seen);
    }

    std::ifstream in(folder / "config.json");
    const nlohmann::json config = nlohmann::json::parse(in);
    for (const char* field : {"architectures", "model_type", "vocab_size", "hidden_size",
                              "num_attention_heads", "max_position_embeddings", "id2label",
                              "label2id", "layer_norm_eps", "classifier_dropout"}) {
      CAPTURE(std::string(field));
      CHECK(config.at(field) == bert.config.at(field));
    }
    SlotTable slots;
    const std::unique_ptr<nn::Model> again = nn::make_model(slots, config);
    CHECK(again->config() == config);
    CHECK(again->task() == bert.model->task());
    const SafetensorsFolder saved = SafetensorsFolder::open(folder);
    const nn::NameMatch match = nn::match_names(*again, saved);
    CHECK(match.missing.empty());
    CHECK(match.unexpected.empty());
    size_t loaded = 0;
    nn::load_weights(*again, saved, match.matched, [&](SlotId slot, const Tensor& value) {
      CHECK(same_bits(value, bert.initial(slots[slot].name)));
      ++loaded;
    });
    CHECK(loaded == bert.parameters.size());
  }
}
