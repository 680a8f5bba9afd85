#include "compress/adapter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "compress/adapter_sites.h"
#include "compress/lora_config.h"
#include "compress/peft_folder.h"
#include "compress/selector.h"
#include "nn/site_key.h"
#include "tensor/core/name_hash.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr std::string_view kAdapterFolder = "adapter";

// 1234567 -> "1,234,567", as PEFT prints counts.
std::string grouped(int64_t count) {
  std::string text = fmt::format("{}", count);
  for (auto at = static_cast<ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

bool is_bias(const NamedParameter& p) { return p.name.ends_with(".bias"); }

// Kaiming uniform of slope sqrt(5), as PEFT and torch's Linear start: bound 1 / sqrt(in).
Tensor first_a(const Slot& slot, uint64_t seed) {
  Tensor out(DType::f32, slot.shape);
  const double bound = 1 / std::sqrt(static_cast<double>(slot.shape[1]));
  const uint64_t stream = name_hash(slot.name);
  auto values = out.as<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    const double u = uniform01(philox(seed, stream, i).word[0]);
    values[i] = static_cast<float>(bound * (2 * u - 1));
  }
  return out.to(slot.dtype);
}

class Adapter final : public Pass {
 public:
  explicit Adapter(const recipe::Recipe& section) : merge_(section.boolean("merge")) {
    if (section.has("path")) {
      for (const char* key : {"rank", "alpha", "use_rslora", "bias", "target", "modules_to_save"}) {
        if (section.given(key)) {
          throw UsageError("adapter",
                           "{}: {} is said by the adapter in adapter.path; leave out one of both",
                           section.where(key), key);
        }
      }
      file_.emplace(section.string("path"));
      config_ = file_->config();
    } else {
      config_.rank = section.integer("rank");
      config_.alpha = section.number("alpha");
      config_.rslora = section.boolean("use_rslora");
      config_.bias = section.string("bias");
      config_.target = section.strings("target");
      if (section.has("modules_to_save")) {
        config_.modules_to_save = section.strings("modules_to_save");
      }
    }
    if (!file_ || section.given("dropout")) {
      config_.dropout = section.number("dropout");
    }
    if (config_.target.empty()) {
      throw UsageError("adapter.target", "{}: no layer is named; give at least one",
                       section.where("target"));
    }
  }

  std::string_view name() const override { return "adapter"; }
  Stage stage() const override { return Stage::model; }

  std::vector<Site> match(const PassTarget& target) const override {
    std::vector<Site> out;
    const std::vector<std::string> saved = saved_modules(*target.model);
    for (const nn::Linear* layer : layers(*target.model)) {
      const bool in_full = lies_in(layer->path(), saved);
      out.push_back({layer->path(), "linear", layer->weight().shape(),
                     in_full ? "trained in full (adapter.modules_to_save)" : ""});
    }
    return out;
  }

  PassEstimate estimate(const PassTarget& target) const override {
    PassEstimate out;
    const std::vector<std::string> saved = saved_modules(*target.model);
    for (const nn::Linear* layer : layers(*target.model)) {
      if (!lies_in(layer->path(), saved)) {
        const Shape shape = layer->weight().shape();
        out.file_bytes += byte_size(DType::f32, {config_.rank, shape[0] + shape[1]});
      }
    }
    out.bytes[static_cast<size_t>(MemoryClass::adapters)] += out.file_bytes;
    for (const NamedParameter& p : all_parameters(*target.model)) {
      const Slot& slot = (*target.slots)[p.slot];
      const bool in_full = lies_in(p.name, saved);
      (in_full ? out.file_bytes : out.bytes[static_cast<size_t>(MemoryClass::gradients)]) +=
          (in_full ? 1 : -1) * byte_size(slot.dtype, slot.shape);
    }
    return out;
  }

  PassReport apply(const PassTarget& target) override {
    const std::vector<std::string> saved = saved_modules(*target.model);
    freeze(target, saved);
    for (nn::Linear* layer : layers(*target.model)) {
      if (!lies_in(layer->path(), saved)) {
        adapt(*layer, *target.slots);
      }
    }
    if (adapted_.empty()) {
      throw UsageError("adapter.target", "all layers named are trained in full; name others");
    }
    saved_ = saved;
    PassReport report;
    report.name = "adapter";
    report.sites = static_cast<int64_t>(adapted_.size());
    int64_t trained = 0;
    int64_t all = 0;
    for (const NamedParameter& p : all_parameters(*target.model)) {
      const Slot& slot = (*target.slots)[p.slot];
      all += slot.shape.numel();
      if (slot.trainable) {
        trained += slot.shape.numel();
        trained_.push_back(p);
      }
    }
    if (file_) {
      file_->check(trained_, *target.slots);
    }
    report.what =
        fmt::format("lora of rank {}; trainable params: {} || all params: {} || trainable%: {:.4f}",
                    config_.rank, grouped(trained), grouped(all),
                    100.0 * static_cast<double>(trained) / static_cast<double>(all));
    return report;
  }

  void start(const PassTarget& target, const PutSlot& put) const override {
    for (const NamedParameter& p : trained_) {
      if (file_) {
        put(p.slot, file_->read(p, *target.slots));
      } else if (p.name.ends_with(".lora_A.weight")) {
        put(p.slot, first_a((*target.slots)[p.slot], target.seed));
      }
    }
  }

  nlohmann::json state() const override {
    return {{"kind", "lora"},
            {"rank", config_.rank},
            {"scale", config_.scale()},
            {"dropout", config_.dropout},
            {"layers", paths()}};
  }

  void restore(const nlohmann::json& state) override {
    const nlohmann::json own = this->state();
    for (const auto& [key, value] : own.items()) {
      if (state.value(key, nlohmann::json()) != value) {
        throw FileError("checkpoint",
                        "adapter: its {} is not that of the recipe; resume with the "
                        "recipe it was made with",
                        key);
      }
    }
  }

  bool write_files(const RunFiles& run) const override {
    write_peft_folder(run, run.folder / kAdapterFolder, config_, paths(), saved_, trained_);
    return !merge_;
  }

  std::string invert(const PassTarget& target) override {
    for (nn::Linear* layer : adapted_) {
      const std::unique_ptr<nn::Weight> sum = layer->set_weight(nullptr);
      layer->set_weight(static_cast<nn::Sum&>(*sum).take_base());
      layer->remove_adapters();
    }
    for (const SlotId slot : frozen_) {
      (*target.slots)[slot].trainable = true;
    }
    adapted_.clear();
    frozen_.clear();
    trained_.clear();
    saved_.clear();
    return {};
  }

 private:
  std::vector<nn::Linear*> layers(nn::Model& model) const {
    return linear_layers(model, config_.target, file_ ? "adapter.path" : "adapter.target");
  }

  std::vector<std::string> saved_modules(const nn::Model& model) const {
    std::vector<std::string> patterns =
        config_.modules_to_save.value_or(std::vector<std::string>{model.head()});
    if (file_) {  // PEFT names the heads of all models, of which this one has one
      std::erase_if(patterns, [&](const std::string& p) { return !names_any_path(model, p); });
    }
    return chosen_paths(model, patterns, "adapter.modules_to_save");
  }

  // Everything but the saved modules and the biases that are trained along.
  void freeze(const PassTarget& target, const std::vector<std::string>& saved) {
    std::vector<SlotId> biases;
    if (config_.bias == "lora_only") {
      for (const nn::Linear* layer : layers(*target.model)) {
        biases.push_back(layer->bias());
      }
    }
    for (const NamedParameter& p : all_parameters(*target.model)) {
      Slot& slot = (*target.slots)[p.slot];
      const bool keep = lies_in(p.name, saved) || (config_.bias == "all" && is_bias(p)) ||
                        std::find(biases.begin(), biases.end(), p.slot) != biases.end();
      if (slot.trainable && !keep) {
        slot.trainable = false;
        frozen_.push_back(p.slot);
      }
    }
  }

  void adapt(nn::Linear& layer, SlotTable& slots) {
    const Shape shape = layer.weight().shape();
    const SlotId a = layer.add_adapter("lora_A.weight", {config_.rank, shape[1]});
    const SlotId b = layer.add_adapter("lora_B.weight", {shape[0], config_.rank});
    for (const SlotId s : layer.weight().slots()) {
      slots[a].dtype = slots[b].dtype = slots[s].dtype == DType::f64 ? DType::f64 : DType::f32;
    }
    std::vector<std::unique_ptr<nn::Weight>> terms;
    terms.push_back(layer.set_weight(nullptr));
    terms.push_back(std::make_unique<nn::LowRank>(
        a, b, shape,
        nn::LowRank::Options{config_.scale(), config_.dropout, nn::site_key(layer, 0)}));
    layer.set_weight(std::make_unique<nn::Sum>(std::move(terms)));
    adapted_.push_back(&layer);
  }

  std::vector<std::string> paths() const {
    std::vector<std::string> out;
    for (const nn::Linear* layer : adapted_) {
      out.push_back(layer->path());
    }
    return out;
  }

  const bool merge_;
  LoraConfig config_;
  std::optional<PeftFolder> file_;
  // Since apply:
  std::vector<nn::Linear*> adapted_;
  std::vector<SlotId> frozen_;
  std::vector<NamedParameter> trained_;  // what the adapter's files hold
  std::vector<std::string> saved_;       // paths of the modules trained in full
};

recipe::Schema options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "kind",
            .type = Type::string,
            .fallback = std::string("lora"),
            .help = "what is added to the weight W of a layer; lora: (alpha / rank) B A",
            .choices = {"lora"}})
      .add({.key = "rank",
            .type = Type::integer,
            .fallback = int64_t{8},
            .help = "rows of A, columns of B",
            .min = 1,
            .max = 1 << 16})
      .add({.key = "alpha",
            .type = Type::number,
            .fallback = 16.0,
            .help = "what is added is scaled by alpha / rank",
            .min = 1e-6,
            .max = 1e9})
      .add({.key = "use_rslora",
            .type = Type::boolean,
            .fallback = false,
            .help = "scale by alpha / sqrt(rank) instead"})
      .add({.key = "dropout",
            .type = Type::number,
            .fallback = 0.0,
            .help = "dropout of the adapter's input, not of the layer's; above 0 each layer saves "
                    "its own dropped input",
            .min = 0,
            .max = 0.99})
      .add({.key = "target",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{"query", "value"},
            .help = "linear layers with an adapter: the last parts of their paths, or whole paths "
                    "with * and ?"})
      .add({.key = "bias",
            .type = Type::string,
            .fallback = std::string("none"),
            .help = "biases that are trained along; lora_only: those of the layers with adapters",
            .choices = {"none", "all", "lora_only"}})
      .add({.key = "modules_to_save",
            .type = Type::string_list,
            .help = "modules that are trained in full and written beside the adapter, named like "
                    "target; default: the model's head"})
      .add({.key = "path",
            .type = Type::path,
            .help = "PEFT folder of an adapter to go on with; it brings rank, alpha, bias, target "
                    "and modules_to_save"})
      .add({.key = "merge",
            .type = Type::boolean,
            .fallback = false,
            .help = "at the end also write the whole model, the adapter folded into its weights"});
  return schema;
}

std::unique_ptr<Pass> make(const recipe::Recipe& section) {
  return std::make_unique<Adapter>(section);
}

}  // namespace

const PassKind adapter_pass = {"adapter", "train small additions to frozen weights", options, make};

}  // namespace lithe
