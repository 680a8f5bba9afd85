#include "train/start_weights.h"

#include <algorithm>
#include <set>

#include "tensor/core/glob.h"

namespace lithe {
namespace {

constexpr size_t kShown = 8;

std::string list(const std::vector<std::string>& names) {
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size()));
  return fmt::format("{}{}", fmt::join(names.begin(), end, ", "),
                     names.size() > kShown ? ", ..." : "");
}

}  // namespace

StartWeights::StartWeights(Experiment& experiment) : experiment_(experiment) {
  const recipe::Recipe model = experiment_.recipe().section("model");
  if (model.string("weights") == "random") {
    lines_.emplace_back("weights: drawn from the seed");
    return;
  }
  if (!model.has("path")) {
    throw UsageError("model.weights", "{}: pretrained weights need model.path",
                     model.where("weights"));
  }
  const std::string path = model.string("path");
  folder_ = SafetensorsFolder::open(path);
  nn::NameMatch match = nn::match_names(experiment_.model(), *folder_);
  const std::vector<std::string> reinit = model.strings("reinit");
  for (const std::string& pattern : reinit) {
    const auto hit = [&](const std::string& name) { return glob_match(pattern, name); };
    if (std::none_of(match.matched.begin(), match.matched.end(), hit) &&
        std::none_of(match.missing.begin(), match.missing.end(), hit)) {
      throw UsageError("model.reinit", "{}: '{}' matches no parameter of the model",
                       model.where("reinit"), pattern);
    }
  }
  const auto drawn_anew = [&](const std::string& name) {
    return std::any_of(reinit.begin(), reinit.end(),
                       [&](const std::string& pattern) { return glob_match(pattern, name); });
  };
  const size_t before = match.matched.size() + match.missing.size();
  std::erase_if(match.missing, drawn_anew);
  std::erase_if(match.matched, drawn_anew);
  const size_t anew = before - match.matched.size() - match.missing.size();
  lines_.push_back(
      fmt::format("weights: {} matched, {} drawn anew, {} missing, {} unexpected in {}",
                  match.matched.size(), anew, match.missing.size(), match.unexpected.size(), path));
  if (!match.missing.empty()) {
    throw FileError(
        "weights",
        "{} lacks {} of the model's tensors: {}; name those that shall be drawn anew in "
        "model.reinit",
        path, match.missing.size(), list(nn::with_nearest(match.missing, match)));
  }
  if (!match.unexpected.empty()) {
    const std::string names = list(nn::with_nearest(match.unexpected, match));
    if (!model.boolean("allow_unexpected")) {
      throw FileError("weights",
                      "{} has {} tensors that the model lacks: {}; allow them with "
                      "model.allow_unexpected=true",
                      path, match.unexpected.size(), names);
    }
    lines_.push_back(fmt::format("weights: left in the file: {}", names));
  }
  wanted_ = std::move(match.matched);
}

void StartWeights::write(const std::function<void(SlotId, const Tensor&)>& put) const {
  SlotTable& slots = experiment_.slots();
  const std::set<std::string_view> read(wanted_.begin(), wanted_.end());
  const auto seed = static_cast<uint64_t>(experiment_.recipe().integer("seed"));
  for (SlotId s = 0; s < slots.size(); ++s) {
    if (!read.contains(slots[slots.original(s)].name)) {
      put(s, initial_value(slots, s, seed));
    }
  }
  const auto put_parameter = [&](SlotId s, const Tensor& value) {
    put(s, value);
    if (const SlotId copy = slots[s].copy; copy != kNoSlot) {
      put(copy, value.to(slots[copy].dtype));
    }
  };
  if (folder_) {
    nn::load_weights(experiment_.model(), *folder_, wanted_, put_parameter);
  }
  experiment_.passes().start(experiment_.pass_target(), put_parameter);
}

}  // namespace lithe
