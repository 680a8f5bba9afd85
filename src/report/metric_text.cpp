#include "report/metric_text.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "report/units.h"

namespace lithe {

std::string metric_title(const std::string& key) {
  static const std::map<std::string, std::string> kTitles = {
      {"lr", "Learning rate"},
      {"samples_per_s", "Samples per second"},
      {"grad_norm", "Gradient norm"},
      {"tflops", "TFLOP/s"},
      {"peak_bytes", "Peak memory"},
      {"step_s", "Step time"},
      {"tokens_per_s", "Tokens per second"}};
  const auto known = kTitles.find(key);
  if (known != kTitles.end()) {
    return known->second;
  }
  std::string title = key.starts_with("eval_") ? "evaluation " + key.substr(5) : key;
  std::replace(title.begin(), title.end(), '_', ' ');
  if (!title.empty() && title[0] >= 'a' && title[0] <= 'z') {
    title[0] = static_cast<char>(title[0] - 'a' + 'A');
  }
  return title;
}

bool is_fraction(const std::string& key) { return key.find("accuracy") != std::string::npos; }

std::function<std::string(double)> metric_format(const std::string& key) {
  if (is_fraction(key)) {
    return [](double v) { return std::isfinite(v) ? format_number(100 * v) + " %" : "NaN"; };
  }
  if (key.find("bytes") != std::string::npos) {
    return [](double v) {
      // Files may claim what no integer holds.
      return std::abs(v) < 0x1p62 ? format_bytes(static_cast<int64_t>(v)) : format_number(v);
    };
  }
  return format_count;
}

std::string format_run_time(const std::string& key, double time) {
  return key.find("_ms") != std::string::npos ? format_number(time) + " ms" : format_duration(time);
}

}  // namespace lithe
