#include "report/run_data.h"

#include <cmath>
#include <limits>

#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

using Json = nlohmann::ordered_json;

Json number_json(double value) {
  if (!std::isfinite(value)) {
    return nullptr;
  }
  if (value == std::floor(value) && std::abs(value) < 9007199254740992.0) {
    return static_cast<int64_t>(value);
  }
  return value;
}

// Null stands for a number that was not finite; text members are not numbers and are left out.
NamedNumbers numbers_from_json(const Json& json, std::string_view leave_out = "") {
  NamedNumbers numbers;
  for (const auto& [key, value] : json.items()) {
    if (key == leave_out) {
      continue;
    }
    if (value.is_number()) {
      numbers.emplace_back(key, value.get<double>());
    } else if (value.is_null()) {
      numbers.emplace_back(key, std::numeric_limits<double>::quiet_NaN());
    }
  }
  return numbers;
}

Json numbers_json(const NamedNumbers& numbers) {
  Json json = Json::object();
  for (const auto& [key, value] : numbers) {
    json[key] = number_json(value);
  }
  return json;
}

// A summary is a page of text, a memory report some hundred bytes a value.
constexpr uintmax_t kMostSummaryBytes = uintmax_t{1} << 16;
constexpr uintmax_t kMostMemoryBytes = uintmax_t{1} << 28;
constexpr uintmax_t kMostRecipeBytes = uintmax_t{1} << 20;

std::string read_bounded(const std::filesystem::path& path, uintmax_t most) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    throw FileError("read_run", "{} is no regular file; run again to write it anew", path.string());
  }
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > most) {
    throw FileError("read_run", "{} has {} bytes, at most {} are read; run again to write it anew",
                    path.string(), bytes, most);
  }
  return read_whole_file(path);
}

// Keeping the order of keys takes time that grows with their square.
template <typename AnyJson>
AnyJson parse_json(const std::filesystem::path& path, uintmax_t most) {
  const std::string text = read_bounded(path, most);
  try {
    return AnyJson::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw FileError("read_run", "{} is damaged: {}; run again to write it anew", path.string(),
                    error.what());
  }
}

RunSummary summary_from_json(const Json& json, const std::string& where) {
  try {
    RunSummary summary;
    summary.name = json.at("name").get<std::string>();
    summary.status = json.at("status").get<std::string>();
    summary.device = json.at("device").get<std::string>();
    const Json& seed = json.at("seed");
    if (!seed.is_number_unsigned()) {
      throw FileError("read_run", "{}: its seed is no whole number; run again to write it anew",
                      where);
    }
    summary.seed = seed.get<uint64_t>();
    summary.started = json.at("started").get<std::string>();
    summary.metrics = numbers_from_json(json.at("metrics"));
    summary.times = numbers_from_json(json.at("times"));
    for (const auto& [key, value] : json.at("versions").items()) {
      summary.versions.emplace_back(key, value.get<std::string>());
    }
    return summary;
  } catch (const nlohmann::json::exception& error) {
    throw FileError("read_run", "{} is no run summary: {}; run again to write it anew", where,
                    error.what());
  }
}

std::string folder_name(const std::filesystem::path& folder) {
  const std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();  // "runs/NAME/"
}

bool has_file(const std::filesystem::path& folder, const char* name) {
  std::error_code ignored;
  return std::filesystem::exists(folder / name, ignored);
}

}  // namespace

std::string metric_line_json(const MetricLine& line) {
  Json json;
  json["step"] = line.step;
  for (const auto& [key, value] : line.values) {
    json[key] = number_json(value);
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<MetricLine> parse_metrics(std::string_view text, const std::string& where) {
  std::vector<MetricLine> lines;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      break;
    }
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) {
      throw FileError("read_run",
                      "{}:{}: not a JSON object with an integer \"step\"; remove the "
                      "line",
                      where, number);
    }
    lines.push_back({json["step"].get<int64_t>(), numbers_from_json(json, "step")});
  }
  return lines;
}

Json summary_json(const RunSummary& summary, const MemoryReport* memory) {
  Json json;
  json["name"] = summary.name;
  json["status"] = summary.status;
  json["device"] = summary.device;
  json["seed"] = summary.seed;
  json["started"] = summary.started;
  json["metrics"] = numbers_json(summary.metrics);
  if (memory != nullptr) {
    json["predicted_peak_bytes"] = memory->predicted_peak_bytes;
    json["measured_peak_bytes"] =
        memory->measured_peak_bytes < 0 ? Json(nullptr) : Json(memory->measured_peak_bytes);
    json["memory"] = memory_by_class_json(memory->with_context());
    json["memory_most"] = memory_by_class_json(memory->most_by_class());
  }
  json["times"] = numbers_json(summary.times);
  json["versions"] = Json::object();
  for (const auto& [key, value] : summary.versions) {
    json["versions"][key] = value;
  }
  return json;
}

RunData read_run_record(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw FileError("read_run", "{} is not a folder; give the folder of a run, runs/NAME",
                    folder.string());
  }
  RunData data;
  data.name = folder_name(folder);
  if (has_file(folder, "recipe.yaml")) {
    data.recipe_yaml = read_bounded(folder / "recipe.yaml", kMostRecipeBytes);
  }
  if (has_file(folder, "summary.json")) {
    const std::filesystem::path path = folder / "summary.json";
    data.summary = summary_from_json(parse_json<Json>(path, kMostSummaryBytes), path.string());
  }
  if (has_file(folder, "memory.json")) {
    const std::filesystem::path path = folder / "memory.json";
    data.memory =
        memory_report_from_json(parse_json<nlohmann::json>(path, kMostMemoryBytes), path.string());
  }
  return data;
}

RunData read_run(const std::filesystem::path& folder) {
  RunData data = read_run_record(folder);
  if (has_file(folder, "metrics.jsonl")) {
    const std::filesystem::path path = folder / "metrics.jsonl";
    data.metrics = parse_metrics(read_whole_file(path), path.string());
  }
  return data;
}

}  // namespace lithe
