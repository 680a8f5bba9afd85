#include "compress/freeze.h"

#include <algorithm>

#include "compress/selector.h"

namespace lithe {
namespace {

class Freeze final : public Pass {
 public:
  explicit Freeze(const recipe::Recipe& section)
      : layers_(section.has("layers") ? section.string("layers") : ""),
        patterns_(section.strings("patterns")),
        all_but_(section.strings("all_but")) {
    if (layers_.empty() && patterns_.empty() && all_but_.empty()) {
      throw UsageError("freeze", "{}: nothing is chosen; give layers, patterns or all_but",
                       section.where("layers"));
    }
  }

  std::string_view name() const override { return "freeze"; }
  Stage stage() const override { return Stage::model; }

  std::vector<Site> match(const PassTarget& target) const override {
    std::vector<Site> sites;
    for (const NamedParameter& p : chosen(target)) {
      const Slot& slot = (*target.slots)[p.slot];
      sites.push_back({p.name, "parameter", slot.shape, slot.trainable ? "" : "frozen already"});
    }
    return sites;
  }

  // Only what no graph is needed for: the gradients that are never made.
  PassEstimate estimate(const PassTarget& target) const override {
    PassEstimate out;
    for (const NamedParameter& p : chosen(target)) {
      const Slot& slot = (*target.slots)[p.slot];
      out.bytes[static_cast<size_t>(MemoryClass::gradients)] -= byte_size(slot.dtype, slot.shape);
    }
    return out;
  }

  PassReport apply(const PassTarget& target) override {
    frozen_.clear();
    int64_t elements = 0;
    int64_t all = 0;
    for (const NamedParameter& p : chosen(target)) {
      Slot& slot = (*target.slots)[p.slot];
      if (slot.trainable) {
        slot.trainable = false;
        frozen_.push_back(p.slot);
        elements += slot.shape.numel();
      }
    }
    const std::vector<NamedParameter> parameters = all_parameters(*target.model);
    for (const NamedParameter& p : parameters) {
      all += (*target.slots)[p.slot].shape.numel();
    }
    if (std::none_of(parameters.begin(), parameters.end(),
                     [&](const auto& p) { return (*target.slots)[p.slot].trainable; })) {
      throw UsageError("freeze",
                       "all {} parameters are frozen, so nothing would be trained; choose fewer",
                       parameters.size());
    }
    PassReport report;
    report.name = "freeze";
    report.sites = static_cast<int64_t>(frozen_.size());
    report.what =
        fmt::format("{} of {} tensors, {:.1f} % of the weights", frozen_.size(), parameters.size(),
                    100.0 * static_cast<double>(elements) / static_cast<double>(all));
    return report;
  }

  std::string invert(const PassTarget& target) override {
    for (SlotId slot : frozen_) {
      (*target.slots)[slot].trainable = true;
    }
    frozen_.clear();
    return {};
  }

 private:
  std::vector<NamedParameter> chosen(const PassTarget& target) const {
    const std::vector<NamedParameter> parameters = all_parameters(*target.model);
    std::vector<bool> take(parameters.size(), false);
    if (!layers_.empty()) {
      for (int block : parse_blocks(layers_, target.model->block_count(), "freeze.layers")) {
        for (size_t i = 0; i < parameters.size(); ++i) {
          take[i] = take[i] || parameters[i].block == block;
        }
      }
    }
    mark(parameters, patterns_, "freeze.patterns", take);
    if (!all_but_.empty()) {
      std::vector<bool> kept(parameters.size(), false);
      mark(parameters, all_but_, "freeze.all_but", kept);
      for (size_t i = 0; i < parameters.size(); ++i) {
        take[i] = take[i] || !kept[i];
      }
    }
    std::vector<NamedParameter> out;
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (take[i]) {
        out.push_back(parameters[i]);
      }
    }
    return out;
  }

  static void mark(const std::vector<NamedParameter>& parameters,
                   const std::vector<std::string>& patterns, std::string_view key,
                   std::vector<bool>& take) {
    for (const std::string& pattern : patterns) {
      bool any = false;
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (glob_match(pattern, parameters[i].name)) {
          take[i] = true;
          any = true;
        }
      }
      if (!any) {
        throw UsageError(key, "'{}' matches no parameter; the nearest is '{}'", pattern,
                         nearest_name(pattern, parameters));
      }
    }
  }

  std::string layers_;
  std::vector<std::string> patterns_;
  std::vector<std::string> all_but_;
  std::vector<SlotId> frozen_;
};

recipe::Schema options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "layers",
            .type = Type::string,
            .help = "blocks to freeze: 0-8, 0-2,5, last 2 or all"})
      .add({.key = "patterns",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{},
            .help = "parameters to freeze by name, * and ? allowed"})
      .add({.key = "all_but",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{},
            .help = "freeze everything except these names, * and ? allowed"});
  return schema;
}

std::unique_ptr<Pass> make(const recipe::Recipe& section) {
  return std::make_unique<Freeze>(section);
}

}  // namespace

const PassKind freeze_pass = {"freeze", "keep chosen parameters fixed", options, make};

}  // namespace lithe
