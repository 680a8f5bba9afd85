#include "train/export.h"

#include "nn/pretrained.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

// Whatever tokenizer a model brings along belongs to its weights.
constexpr std::array kTokenizerFiles = {"tokenizer.json", "vocab.txt", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json"};

}  // namespace

void export_model(const Experiment& experiment, const fs::path& folder,
                  const std::function<Tensor(SlotId)>& get) {
  // Fields that the engine does not know stay as they were.
  nlohmann::json config = experiment.config();
  for (const char* outdated : {"torch_dtype", "dtype", "_name_or_path", "num_labels"}) {
    config.erase(outdated);
  }
  nn::save_weights(experiment.model(), folder, get, std::move(config));

  const recipe::Recipe& recipe = experiment.recipe();
  if (!recipe.has("model.path")) {
    return;
  }
  for (const char* name : kTokenizerFiles) {
    const fs::path from = fs::path(recipe.string("model.path")) / name;
    std::error_code error;
    if (fs::exists(from, error) && !fs::equivalent(from, folder / name, error)) {
      write_file_atomically(folder / name, read_whole_file(from));
    }
  }
}

}  // namespace lithe
