#include "compress/freeze.h"

#include <algorithm>
#include <array>
#include <optional>

#include "compress/freeze_schedule.h"
#include "compress/freeze_units.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

constexpr std::array<std::pair<std::string_view, ChangeMetric>, 3> kMetrics = {{
    {"guarded", ChangeMetric::guarded},
    {"relative", ChangeMetric::relative},
    {"norm_ratio", ChangeMetric::norm_ratio},
}};

class Freeze final : public Pass {
 public:
  explicit Freeze(const recipe::Recipe& section)
      : layers_(section.has("layers") ? section.string("layers") : ""),
        patterns_(section.strings("patterns")),
        all_but_(section.strings("all_but")),
        units_(section.strings("units")),
        always_(section.strings("always")),
        scheduled_(section.string("schedule") != "static"),
        legacy_momentum_(section.boolean("legacy_momentum")) {
    if (!scheduled_) {
      if (legacy_momentum_) {
        throw UsageError("freeze.legacy_momentum",
                         "{}: is for schedules, by which units are trained in turn; what is frozen "
                         "for good has no momentum",
                         section.where("legacy_momentum"));
      }
      if (layers_.empty() && patterns_.empty() && all_but_.empty()) {
        throw UsageError("freeze",
                         "{}: nothing is chosen; give layers, patterns or all_but, or a schedule",
                         section.where("layers"));
      }
      return;
    }
    options_.kind = schedule_kind(section.string("schedule"));
    options_.fraction = section.number("fraction");
    options_.init_scale = section.number("init_scale");
    options_.ageing = section.number("ageing");
    options_.skip_lr_zero = section.boolean("skip_lr_zero");
    options_.lag = section.integer("lag");
    const std::string metric = section.string("metric");
    metric_ = std::find_if(kMetrics.begin(), kMetrics.end(), [&](const auto& m) {
                return m.first == metric;
              })->second;  // the schema's choices are kMetrics' names
  }

  std::string_view name() const override { return "freeze"; }
  Stage stage() const override { return Stage::model; }

  std::vector<Site> match(const PassTarget& target) const override {
    std::vector<Site> sites;
    for (const NamedParameter& p : chosen(target)) {
      const Slot& slot = (*target.slots)[p.slot];
      sites.push_back({p.name, "parameter", slot.shape, slot.trainable ? "" : "frozen already"});
    }
    for (const NamedParameter& p : scheduled(target)) {
      sites.push_back({p.name, "unit", (*target.slots)[p.slot].shape, ""});
    }
    return sites;
  }

  // Only what no graph is needed for: the gradients that are never made, of units those that are
  // not made even where the largest are trained.
  PassEstimate estimate(const PassTarget& target) const override {
    PassEstimate out;
    for (const NamedParameter& p : chosen(target)) {
      const Slot& slot = (*target.slots)[p.slot];
      out.bytes[static_cast<size_t>(MemoryClass::gradients)] -= byte_size(slot.dtype, slot.shape);
    }
    std::vector<int64_t> sizes;
    for (const NamedParameter& p : scheduled(target)) {
      const Slot& slot = (*target.slots)[p.slot];
      sizes.push_back(byte_size(slot.dtype, slot.shape));
    }
    std::sort(sizes.begin(), sizes.end());
    sizes.resize(
        static_cast<size_t>(frozen_count(options_.fraction, static_cast<int64_t>(sizes.size()))));
    for (const int64_t bytes : sizes) {
      out.bytes[static_cast<size_t>(MemoryClass::gradients)] -= bytes;
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
    const std::vector<NamedParameter> units = scheduled(target);
    // Units that are frozen in every step are no exception.
    const auto trains = [&](const NamedParameter& p) {
      const bool unit = std::any_of(units.begin(), units.end(),
                                    [&](const NamedParameter& u) { return u.slot == p.slot; });
      return (*target.slots)[p.slot].trainable && !(unit && options_.fraction >= 1);
    };
    if (std::none_of(parameters.begin(), parameters.end(), trains)) {
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
    if (scheduled_) {
      start_schedule(target, units, report);
    }
    return report;
  }

  bool on(PassEvent event, int64_t step) override {
    if (event != PassEvent::step_begin || !schedule_) {
      return false;
    }
    std::vector<bool> trains(plan_.units.size(), false);
    for (const int64_t unit : schedule_->choose(step)) {
      trains[static_cast<size_t>(unit)] = true;
    }
    bool changed = false;
    for (size_t u = 0; u < trains.size(); ++u) {
      bool& mark = (*slots_)[plan_.units[u]].trainable;
      changed = changed || mark != trains[u];
      mark = trains[u];
    }
    return changed;
  }

  const UnitSchedule* schedule() const override { return schedule_ ? &plan_ : nullptr; }

  void run_length(int64_t steps) override {
    if (schedule_) {
      schedule_->run_length(steps);
    }
  }

  void measured(int64_t step, double lr, std::span<const UnitChange> changes) override {
    if (!schedule_) {
      return;
    }
    std::vector<UnitMoved> moved;
    moved.reserve(changes.size());
    for (const UnitChange& change : changes) {
      const auto at = std::find(plan_.units.begin(), plan_.units.end(), change.unit);
      if (at != plan_.units.end()) {
        moved.push_back({at - plan_.units.begin(), change.by});
      }
    }
    schedule_->measured(step, lr, moved);
  }

  nlohmann::json state() const override {
    if (!schedule_) {
      return nlohmann::json::object();
    }
    nlohmann::json out = schedule_->state();
    out["units"] = unit_names();
    return out;
  }

  void restore(const nlohmann::json& state) override {
    if (!schedule_) {
      return;
    }
    if (state.value("units", nlohmann::json()) != nlohmann::json(unit_names())) {
      throw FileError("checkpoint",
                      "freeze: its units are not those of the recipe; use the same freeze.units, "
                      "always, layers, patterns and all_but");
    }
    schedule_->restore(state);
  }

  std::string invert(const PassTarget& target) override {
    for (SlotId slot : frozen_) {
      (*target.slots)[slot].trainable = true;
    }
    for (SlotId slot : plan_.units) {
      (*target.slots)[slot].trainable = true;
    }
    frozen_.clear();
    plan_ = {};
    schedule_.reset();
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

  // The units; what is frozen for good is none.
  std::vector<NamedParameter> scheduled(const PassTarget& target) const {
    std::vector<NamedParameter> out;
    if (scheduled_) {
      out = freeze_units(*target.model, units_, always_);
      for (const NamedParameter& p : chosen(target)) {
        std::erase_if(out, [&](const NamedParameter& unit) { return unit.slot == p.slot; });
      }
    }
    return out;
  }

  // All units stay marked as trained: each of them needs its optimizer state.
  void start_schedule(const PassTarget& target, const std::vector<NamedParameter>& units,
                      PassReport& report) {
    if (units.empty()) {
      throw UsageError("freeze",
                       "no unit is left to schedule: layers, patterns, all_but and always "
                       "take all of them; choose fewer");
    }
    options_.seed = target.seed;
    schedule_.emplace(options_, static_cast<int64_t>(units.size()));
    slots_ = target.slots;
    plan_ = {};
    plan_.active = schedule_->active_count();
    plan_.metric = options_.kind == ScheduleKind::ils ? metric_ : ChangeMetric::none;
    plan_.lag = options_.lag;
    plan_.legacy_momentum = legacy_momentum_;
    for (const NamedParameter& p : units) {
      plan_.units.push_back(p.slot);
    }
    const int64_t frozen = schedule_->units() - schedule_->active_count();
    report.sites += schedule_->units();
    report.what =
        fmt::format("{}: {} of {} units frozen in each step, {} trained{}",
                    schedule_kind_name(options_.kind), frozen, schedule_->units(),
                    schedule_->active_count(), frozen_.empty() ? "" : "; for good " + report.what);
  }

  std::vector<std::string> unit_names() const {
    std::vector<std::string> names;
    for (SlotId slot : plan_.units) {
      names.push_back((*slots_)[slot].name);
    }
    return names;
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
  std::vector<std::string> units_;
  std::vector<std::string> always_;
  const bool scheduled_;
  const bool legacy_momentum_;
  FreezeScheduleOptions options_;
  ChangeMetric metric_ = ChangeMetric::none;
  std::vector<SlotId> frozen_;  // for good
  SlotTable* slots_ = nullptr;  // since apply, where there is a schedule
  UnitSchedule plan_;
  std::optional<FreezeSchedule> schedule_;
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
            .help = "freeze everything except these names, * and ? allowed"})
      .add({.key = "schedule",
            .type = Type::string,
            .fallback = std::string("static"),
            .help = "static: only layers, patterns and all_but; else which units are trained in a "
                    "step: ils (those that moved most, SlimFit), random, round_robin, progressive "
                    "(a window from the first to the last)",
            .choices = {"static", "ils", "random", "round_robin", "progressive"}})
      .add({.key = "fraction",
            .type = Type::number,
            .fallback = 0.9,
            .help = "share of the units frozen in each step, by count",
            .min = 0,
            .max = 1})
      .add({.key = "units",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{"auto"},
            .help = "what is scheduled; auto: weights of two or more dimensions and the scales of "
                    "the norms up to the last block; or names of such, * and ? allowed"})
      .add({.key = "always",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{},
            .help = "units to train in every step instead, by name, * and ? allowed"})
      .add({.key = "metric",
            .type = Type::string,
            .fallback = std::string("guarded"),
            .help = "ils: how far a unit moved; relative: mean |dw| / |w|, the paper's; guarded: "
                    "the same with |w| at least 1e-3; norm_ratio: sum |dw| / sum |w|",
            .choices = {"guarded", "relative", "norm_ratio"}})
      .add({.key = "ageing",
            .type = Type::number,
            .fallback = 0.0,
            .help = "ils: the score of a unit grows by this part of itself in a step in which it "
                    "is frozen; 0: not at all, as in the paper",
            .min = 0})
      .add({.key = "init_scale",
            .type = Type::number,
            .fallback = 1e10,
            .help = "ils: scores start at random up to this, so that each unit comes up once first",
            .min = 0})
      .add({.key = "skip_lr_zero",
            .type = Type::boolean,
            .fallback = true,
            .help = "ils: a step at learning rate 0 sets no scores; false: it sets them to 0, as "
                    "the paper's code does"})
      .add({.key = "legacy_momentum",
            .type = Type::boolean,
            .fallback = false,
            .help = "units that are frozen after they were trained go on moving by their momentum "
                    "and decay, as in the paper's code; false: frozen means frozen"})
      .add({.key = "lag",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "ils: 0: a choice knows the step before it, and waits for it; 1: only the one "
                    "before that, so that it is planned while the device works",
            .min = 0,
            .max = 1});
  return schema;
}

std::unique_ptr<Pass> make(const recipe::Recipe& section) {
  return std::make_unique<Freeze>(section);
}

}  // namespace

const PassKind freeze_pass = {"freeze", "keep parameters fixed, for good or in turn", options,
                              make};

}  // namespace lithe
