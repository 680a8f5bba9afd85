#include "report/memory_report.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tensor/core/error.h"

namespace lithe {
namespace {

using Json = nlohmann::ordered_json;

std::string compact(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Far more than any machine has, and a sum over the classes stays within 64 bits.
constexpr int64_t kMostBytes = int64_t{1} << 59;

int64_t whole_number(const nlohmann::json& json, int64_t low, int64_t high,
                     const std::string& where) {
  // A conversion from a fraction or from beyond 64 bits would be silent.
  const bool fits = json.is_number_integer() &&
                    (!json.is_number_unsigned() || json.get<uint64_t>() <= uint64_t{INT64_MAX});
  const int64_t number = fits ? json.get<int64_t>() : -1;
  if (!fits || number < low || number > high) {
    throw FileError(
        where, "{} where a whole number from {} to {} belongs; write the file again",
        json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 40), low,
        high);
  }
  return number;
}

int64_t bytes_of(const nlohmann::json& json, const std::string& where) {
  return whole_number(json, 0, kMostBytes, where);
}

int position_of(const nlohmann::json& json, const std::string& where) {
  return static_cast<int>(whole_number(json, -1, INT32_MAX - 1, where));
}

}  // namespace

MemoryByClass MemoryReport::with_context() const {
  MemoryByClass out = peak_by_class;
  out[static_cast<size_t>(MemoryClass::context)] += context_bytes;
  return out;
}

MemoryByClass MemoryReport::most_by_class() const {
  MemoryByClass most = peak_by_class;
  for (const MemoryByClass& moment : timeline) {
    for (size_t c = 0; c < most.size(); ++c) {
      most[c] = std::max(most[c], moment[c]);
    }
  }
  return most;
}

int64_t MemoryReport::live_at_peak() const {
  return std::accumulate(peak_by_class.begin(), peak_by_class.end(), int64_t{0});
}

Json memory_by_class_json(const MemoryByClass& bytes) {
  Json json = Json::object();
  for (int c = 0; c < kMemoryClassCount; ++c) {
    json[std::string(memory_class_name(static_cast<MemoryClass>(c)))] =
        bytes[static_cast<size_t>(c)];
  }
  return json;
}

Json to_json(const MemoryReport& report) {
  Json json;
  json["device"] = report.device;
  json["predicted_peak_bytes"] = report.predicted_peak_bytes;
  json["measured_peak_bytes"] =
      report.measured_peak_bytes < 0 ? Json(nullptr) : Json(report.measured_peak_bytes);
  json["persistent_bytes"] = report.persistent_bytes;
  json["arena_bytes"] = report.arena_bytes;
  json["host_bytes"] = report.host_bytes;
  json["peak_position"] = report.peak_position;
  json["memory"] = memory_by_class_json(report.with_context());

  Json& passes = json["passes"] = Json::array();
  for (const PassRow& pass : report.passes) {
    passes.push_back({{"name", pass.name},
                      {"what", pass.what},
                      {"sites", pass.sites},
                      {"bytes_before", pass.bytes_before},
                      {"bytes_after", pass.bytes_after},
                      {"note", pass.note}});
  }
  Json& values = json["values"] = Json::array();
  for (const PlannedValue& value : report.values) {
    values.push_back({{"name", value.name},
                      {"bytes", value.bytes},
                      {"class", memory_class_name(value.cls)},
                      {"offset", value.offset},
                      {"first_use", value.first},
                      {"last_use", value.last}});
  }
  json["order"] = report.order;
  Json& timeline = json["timeline"] = Json::object();
  for (int c = 0; c < kMemoryClassCount; ++c) {
    std::vector<int64_t> column;
    column.reserve(report.timeline.size());
    for (const MemoryByClass& live : report.timeline) {
      column.push_back(live[static_cast<size_t>(c)]);
    }
    if (std::any_of(column.begin(), column.end(), [](int64_t b) { return b != 0; })) {
      timeline[std::string(memory_class_name(static_cast<MemoryClass>(c)))] = std::move(column);
    }
  }
  return json;
}

MemoryReport memory_report_from_json(const nlohmann::json& json, const std::string& where) {
  const auto class_of = [&](const std::string& name) {
    const auto cls = memory_class_from_name(name);
    if (!cls) {
      throw FileError(where, "memory class \"{}\" is unknown; write the file again", name);
    }
    return *cls;
  };
  try {
    MemoryReport report;
    report.device = json.at("device").get<std::string>();
    report.predicted_peak_bytes = bytes_of(json.at("predicted_peak_bytes"), where);
    const nlohmann::json& measured = json.at("measured_peak_bytes");
    report.measured_peak_bytes = measured.is_null() ? -1 : bytes_of(measured, where);
    report.persistent_bytes = bytes_of(json.at("persistent_bytes"), where);
    report.arena_bytes = bytes_of(json.at("arena_bytes"), where);
    // Not in the files of older versions.
    report.host_bytes = json.contains("host_bytes") ? bytes_of(json.at("host_bytes"), where) : 0;
    report.peak_position = position_of(json.at("peak_position"), where);
    for (const auto& [key, bytes] : json.at("memory").items()) {
      report.peak_by_class[static_cast<size_t>(class_of(key))] = bytes_of(bytes, where);
    }
    report.context_bytes =
        std::exchange(report.peak_by_class[static_cast<size_t>(MemoryClass::context)], int64_t{0});
    for (const nlohmann::json& pass : json.at("passes")) {
      report.passes.push_back(
          {pass.at("name").get<std::string>(), pass.at("what").get<std::string>(),
           bytes_of(pass.at("sites"), where), bytes_of(pass.at("bytes_before"), where),
           bytes_of(pass.at("bytes_after"), where), pass.at("note").get<std::string>()});
    }
    int64_t sum = 0;
    for (const nlohmann::json& value : json.at("values")) {
      report.values.push_back(
          {value.at("name").get<std::string>(), bytes_of(value.at("bytes"), where),
           bytes_of(value.at("offset"), where), class_of(value.at("class").get<std::string>()),
           position_of(value.at("first_use"), where), position_of(value.at("last_use"), where)});
      sum += report.values.back().bytes;
      if (sum > kMostBytes) {
        throw FileError(where, "its values are more than {} bytes; write the file again",
                        kMostBytes);
      }
    }
    report.order = json.at("order").get<std::vector<std::string>>();
    const nlohmann::json& timeline = json.at("timeline");
    if (!timeline.empty()) {
      report.timeline.resize(report.order.size());
    }
    for (const auto& [key, column] : timeline.items()) {
      if (!column.is_array() || column.size() != report.order.size()) {
        throw FileError(where,
                        "timeline of {} has {} positions and the order has {}; write the "
                        "file again",
                        key, column.size(), report.order.size());
      }
      const size_t cls = static_cast<size_t>(class_of(key));
      for (size_t i = 0; i < column.size(); ++i) {
        report.timeline[i][cls] = bytes_of(column[i], where);
      }
    }
    return report;
  } catch (const nlohmann::json::exception& error) {
    throw FileError(where, "not a memory report: {}; write the file again", error.what());
  }
}

bool alive_at_peak(const MemoryReport& report, const PlannedValue& value) {
  return value.first <= report.peak_position && report.peak_position <= value.last;
}

std::vector<const PlannedValue*> largest_at_peak(const MemoryReport& report, size_t count) {
  std::vector<const PlannedValue*> alive;
  for (const PlannedValue& value : report.values) {
    if (alive_at_peak(report, value)) {
      alive.push_back(&value);
    }
  }
  const auto larger = [](const PlannedValue* a, const PlannedValue* b) {
    return a->bytes != b->bytes ? a->bytes > b->bytes : a->name < b->name;
  };
  count = std::min(count, alive.size());
  std::partial_sort(alive.begin(), alive.begin() + static_cast<std::ptrdiff_t>(count), alive.end(),
                    larger);
  alive.resize(count);
  return alive;
}

std::string dump_readable(const Json& json) {
  if (!json.is_object()) {
    return compact(json) + "\n";
  }
  std::string text = "{";
  const char* separator = "\n";
  for (const auto& [key, member] : json.items()) {
    text += separator;
    separator = ",\n";
    text += "  " + compact(Json(key)) + ": ";
    if (member.is_array() && !member.empty() && member.front().is_object()) {
      const char* inner = "[\n";
      for (const Json& element : member) {
        text += inner;
        inner = ",\n";
        text += "    " + compact(element);
      }
      text += "\n  ]";
    } else {
      text += compact(member);
    }
  }
  return text + "\n}\n";
}

}  // namespace lithe
