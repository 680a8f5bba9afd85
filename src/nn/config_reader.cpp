#include "nn/config_reader.h"

#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

namespace lithe::nn {
namespace {

constexpr int64_t kLargestConfig = 1 << 20;
constexpr int kDeepestConfig = 64;
// Each label becomes an entry of two maps in the config.json that is written.
constexpr int64_t kMostLabels = 1 << 16;

// A field's value for an error, which need not show all of a hostile file.
std::string shown(const nlohmann::json& field) {
  constexpr size_t kMost = 80;
  const std::string text = field.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

}  // namespace

nlohmann::json read_config(const std::filesystem::path& path, std::string_view key) {
  const std::string name = path.filename().string();
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) {
    throw FileError("config", "{} cannot be read: {}; {} must be a folder with {}", path.string(),
                    error.message(), key, name);
  }
  if (static_cast<int64_t>(size) > kLargestConfig) {
    throw FileError("config", "{} has {} bytes, a {} has at most {}", path.string(), size, name,
                    kLargestConfig);
  }
  std::ifstream in(path);
  const auto depth = [&](int level, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (level > kDeepestConfig) {
      throw FileError("config", "{} is nested deeper than {} levels, a {} is flat", path.string(),
                      kDeepestConfig, name);
    }
    return true;
  };
  nlohmann::json config;
  try {
    config = nlohmann::json::parse(in, depth);
  } catch (const nlohmann::json::exception& e) {
    throw FileError("config", "{} is no valid JSON: {}", path.string(), e.what());
  }
  if (!config.is_object()) {
    throw FileError("config", "{} is a JSON {}, an object is wanted", name, config.type_name());
  }
  return config;
}

ConfigReader::ConfigReader(const nlohmann::json& config) : config_(config) {
  if (!config.is_object()) {
    throw FileError("config", "is a JSON {}, an object is wanted", config.type_name());
  }
}

const nlohmann::json* ConfigReader::find(std::string_view key) const {
  const auto it = config_.find(key);
  return it == config_.end() || it->is_null() ? nullptr : &*it;
}

void ConfigReader::size(std::string_view key, int64_t& value, int64_t largest) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_number_integer() ||
      (field->is_number_unsigned() && field->get<uint64_t>() > static_cast<uint64_t>(largest)) ||
      field->get<int64_t>() < 1 || field->get<int64_t>() > largest) {
    throw FileError("config", "{} is {}; an integer from 1 to {} is wanted", key, shown(*field),
                    largest);
  }
  value = field->get<int64_t>();
}

void ConfigReader::index(std::string_view key, int64_t& value, int64_t size) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_number_integer() ||
      (field->is_number_unsigned() && field->get<uint64_t>() >= static_cast<uint64_t>(size)) ||
      field->get<int64_t>() < 0 || field->get<int64_t>() >= size) {
    throw FileError("config", "{} is {}; an integer from 0 to {} is wanted", key, shown(*field),
                    size - 1);
  }
  value = field->get<int64_t>();
}

void ConfigReader::probability(std::string_view key, double& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_number() || !(field->get<double>() >= 0 && field->get<double>() < 1)) {
    throw FileError("config", "{} is {}; a number in [0, 1) is wanted", key, shown(*field));
  }
  value = field->get<double>();
}

void ConfigReader::positive(std::string_view key, double& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_number() || !std::isfinite(field->get<double>()) || field->get<double>() <= 0) {
    throw FileError("config", "{} is {}; a number above 0 is wanted", key, shown(*field));
  }
  value = field->get<double>();
}

void ConfigReader::flag(std::string_view key, bool& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_boolean()) {
    throw FileError("config", "{} is {}; true or false is wanted", key, shown(*field));
  }
  value = field->get<bool>();
}

void ConfigReader::activation(std::string_view key, Activation& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  const auto kind =
      field->is_string() ? activation_from_name(field->get<std::string>()) : std::nullopt;
  if (!kind) {
    throw FileError("config", "{} is {}; known are gelu, gelu_new, quick_gelu, silu, relu, tanh",
                    key, shown(*field));
  }
  value = *kind;
}

void ConfigReader::text(std::string_view key, std::string& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_string()) {
    throw FileError("config", "{} is {}; a text is wanted", key, shown(*field));
  }
  value = field->get<std::string>();
}

void ConfigReader::first_text(std::string_view key, std::string& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr || !field->is_array()) {
    text(key, value);
    return;
  }
  if (field->empty()) {
    return;
  }
  if (!field->front().is_string()) {
    throw FileError("config", "{} is {}; a list of texts is wanted", key, shown(*field));
  }
  value = field->front().get<std::string>();
}

Labels ConfigReader::labels(int64_t fallback) const {
  Labels out{.count = fallback, .names = {}};
  const nlohmann::json* ids = find("id2label");
  if (ids != nullptr) {
    if (!ids->is_object() || ids->empty()) {
      throw FileError("config", "id2label is {}; an object with a name for each label is wanted",
                      ids->empty() ? "empty" : ids->type_name());
    }
    out.count = static_cast<int64_t>(ids->size());
  }
  size("num_labels", out.count, kMostLabels);
  // Of another number of labels the names are those of another task.
  if (ids == nullptr || out.count != static_cast<int64_t>(ids->size())) {
    return out;
  }
  for (int64_t i = 0; i < out.count; ++i) {
    const auto name = ids->find(std::to_string(i));
    if (name == ids->end() || !name->is_string()) {
      throw FileError("config", "id2label has {} labels but no name for \"{}\"; number them from 0",
                      out.count, i);
    }
    out.names.push_back(name->get<std::string>());
  }
  return out;
}

void write_labels(nlohmann::json& config, const Labels& labels) {
  nlohmann::json names = nlohmann::json::object();
  nlohmann::json ids = nlohmann::json::object();
  for (int64_t i = 0; i < labels.count; ++i) {
    const std::string name =
        labels.names.empty() ? fmt::format("LABEL_{}", i) : labels.names[static_cast<size_t>(i)];
    names[std::to_string(i)] = name;
    ids[name] = i;
  }
  config["id2label"] = std::move(names);
  config["label2id"] = std::move(ids);
}

}  // namespace lithe::nn
