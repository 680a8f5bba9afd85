#include "report/memory_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "report/html.h"
#include "report/text_table.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kNameWidth = 40;
constexpr size_t kMostJsonValues = 100;

// "encoder.layer.11.output/linear" -> "encoder.layer.*.output/linear".
std::string without_layers(const std::string& name) {
  constexpr std::string_view kBetween = "./";
  std::string out;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find_first_of(kBetween, begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += number ? "*" : part;
    if (end < name.size()) {
      out += name[end];
    }
    begin = end + 1;
  }
  return out;
}

// All values of one name in one report.
struct Tally {
  int64_t bytes = 0;  // at the peak
  int64_t count = 0;
  int64_t largest = -1;
  MemoryClass cls = MemoryClass::temporaries;

  void add(const MemoryReport& report, const PlannedValue& value) {
    bytes += alive_at_peak(report, value) ? value.bytes : 0;
    ++count;
    if (value.bytes > largest) {
      largest = value.bytes;
      cls = value.cls;
    }
  }
};

Json bytes_or_null(const std::optional<int64_t>& bytes) {
  return bytes ? Json(*bytes) : Json(nullptr);
}

Json value_json(const ValueDifference& value) {
  Json json;
  json["name"] = value.name;
  json["difference_bytes"] = value.change();
  json["first_bytes"] = bytes_or_null(value.first_bytes);
  json["bytes"] = bytes_or_null(value.bytes);
  json["first_class"] = value.first_bytes ? Json(memory_class_name(value.first_class)) : Json();
  json["class"] = value.bytes ? Json(memory_class_name(value.cls)) : Json();
  return json;
}

}  // namespace

ComparedRun compared_run(const std::filesystem::path& folder) {
  RunData data = read_run_record(folder);
  if (!data.summary || !data.memory) {
    throw FileError("compare",
                    "{} has no {}: the run goes on, was killed or is none; let it end (--resume), "
                    "or compare its recipe",
                    folder.string(), data.summary ? "memory.json" : "summary.json");
  }
  ComparedRun run;
  run.summary = std::move(*data.summary);
  run.summary.name = std::move(data.name);
  run.memory = std::move(*data.memory);
  run.planned_only = false;
  run.source = folder.string();
  run.recipe_yaml = std::move(data.recipe_yaml);
  return run;
}

void make_names_unique(std::span<ComparedRun> runs) {
  std::set<std::string> taken;
  for (ComparedRun& run : runs) {
    const std::string name = shortened(run.summary.name, kNameWidth);
    run.summary.name = name;
    for (int number = 2; !taken.insert(run.summary.name).second; ++number) {
      run.summary.name = fmt::format("{} ({})", name, number);
    }
  }
}

std::vector<ValueDifference> values_that_differ(const MemoryReport& first,
                                                const MemoryReport& other, bool by_layer) {
  std::map<std::string, std::pair<Tally, Tally>> tallies;
  const auto key = [&](const PlannedValue& value) {
    return by_layer ? without_layers(value.name) : value.name;
  };
  for (const PlannedValue& value : first.values) {
    tallies[key(value)].first.add(first, value);
  }
  for (const PlannedValue& value : other.values) {
    tallies[key(value)].second.add(other, value);
  }
  std::vector<ValueDifference> out;
  for (const auto& [name, both] : tallies) {
    const auto& [a, b] = both;
    if (a.bytes != b.bytes) {
      out.push_back({name, std::max(a.count, b.count),
                     a.count > 0 ? std::optional(a.bytes) : std::nullopt,
                     b.count > 0 ? std::optional(b.bytes) : std::nullopt, a.cls, b.cls});
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const ValueDifference& a, const ValueDifference& b) {
    return std::abs(a.change()) > std::abs(b.change());  // the map has them by name
  });
  return out;
}

std::vector<SettingDifference> settings_that_differ(std::span<const ComparedRun> runs) {
  std::vector<SettingDifference> all;
  std::map<std::string, size_t> index;
  std::vector<bool> has_recipe;
  for (size_t r = 0; r < runs.size(); ++r) {
    has_recipe.push_back(!runs[r].recipe_yaml.empty());
    for (auto& [key, value] : recipe_scalars(runs[r].recipe_yaml, true)) {
      if (value == "[]") {
        continue;  // a list's default
      }
      const auto [at, fresh] = index.emplace(key, all.size());
      if (fresh) {
        all.push_back({key, std::vector<std::optional<std::string>>(runs.size())});
      }
      all[at->second].values[r] = std::move(value);
    }
  }
  std::vector<SettingDifference> out;
  for (SettingDifference& setting : all) {
    const std::optional<std::string>* seen = nullptr;
    bool differs = false;
    for (size_t r = 0; r < runs.size(); ++r) {
      if (has_recipe[r]) {
        differs = differs || (seen != nullptr && *seen != setting.values[r]);
        seen = &setting.values[r];
      }
    }
    if (differs && setting.key != "name") {
      out.push_back(std::move(setting));
    }
  }
  return out;
}

Json comparison_json(std::span<const ComparedRun> runs) {
  Json json;
  json["runs"] = Json::array();
  json["values_that_differ"] = Json::array();
  for (const ComparedRun& run : runs) {
    const int64_t first = runs.front().memory.predicted_peak_bytes;
    const int64_t peak = run.memory.predicted_peak_bytes;
    Json entry = summary_json(run.summary, &run.memory);
    entry["planned_only"] = run.planned_only;
    entry["source"] = run.source;
    entry["difference_bytes"] = peak - first;
    entry["ratio"] =
        first > 0 ? Json(static_cast<double>(peak) / static_cast<double>(first)) : Json(nullptr);
    entry["passes"] = Json::array();
    for (const PassRow& pass : run.memory.passes) {
      entry["passes"].push_back({{"name", pass.name}, {"what", pass.what}});
    }
    json["runs"].push_back(std::move(entry));
    if (&run == &runs.front()) {
      continue;
    }
    const std::vector<ValueDifference> values = values_that_differ(runs.front().memory, run.memory);
    Json largest = Json::array();
    for (size_t i = 0; i < std::min(values.size(), kMostJsonValues); ++i) {
      largest.push_back(value_json(values[i]));
    }
    json["values_that_differ"].push_back({{"name", run.summary.name},
                                          {"first", runs.front().summary.name},
                                          {"count", values.size()},
                                          {"largest", std::move(largest)}});
  }
  Json& settings = json["settings_that_differ"] = Json::array();
  for (const SettingDifference& setting : settings_that_differ(runs)) {
    Json values = Json::array();
    for (const std::optional<std::string>& value : setting.values) {
      values.push_back(value ? Json(*value) : Json(nullptr));
    }
    settings.push_back({{"key", setting.key}, {"values", std::move(values)}});
  }
  return json;
}

}  // namespace lithe
