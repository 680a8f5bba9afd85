#include "nn/config_reader.h"

#include <cmath>

#include <nlohmann/json.hpp>

namespace lithe::nn {
namespace {

// Each label becomes an entry of two maps in the config.json that is written.
constexpr int64_t kMostLabels = 1 << 20;

}  // namespace

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
    throw FileError("config", "{} is {}; an integer from 1 to {} is wanted", key, field->dump(),
                    largest);
  }
  value = field->get<int64_t>();
}

void ConfigReader::probability(std::string_view key, double& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_number() || !(field->get<double>() >= 0 && field->get<double>() < 1)) {
    throw FileError("config", "{} is {}; a number in [0, 1) is wanted", key, field->dump());
  }
  value = field->get<double>();
}

void ConfigReader::positive(std::string_view key, double& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_number() || !std::isfinite(field->get<double>()) || field->get<double>() <= 0) {
    throw FileError("config", "{} is {}; a number above 0 is wanted", key, field->dump());
  }
  value = field->get<double>();
}

void ConfigReader::flag(std::string_view key, bool& value) const {
  const nlohmann::json* field = find(key);
  if (field == nullptr) {
    return;
  }
  if (!field->is_boolean()) {
    throw FileError("config", "{} is {}; true or false is wanted", key, field->dump());
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
                    key, field->dump());
  }
  value = *kind;
}

int64_t ConfigReader::label_count(int64_t fallback) const {
  int64_t count = fallback;
  if (const nlohmann::json* labels = find("id2label"); labels != nullptr) {
    if (!labels->is_object() || labels->empty()) {
      throw FileError("config", "id2label is {}; an object with a name for each label is wanted",
                      labels->empty() ? "empty" : labels->type_name());
    }
    count = static_cast<int64_t>(labels->size());
  }
  size("num_labels", count, kMostLabels);
  return count;
}

}  // namespace lithe::nn
