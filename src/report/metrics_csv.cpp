#include "report/metrics_csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

// RFC 4180: text with a separator, a quote or a line end is quoted, quotes in it are doubled.
std::string cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) {
    return text;
  }
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c == '"' ? "\"\"" : std::string(1, c);
  }
  return quoted + '"';
}

}  // namespace

std::string MetricsCsv::row(const MetricLine& line) const {
  std::string text = fmt::format("{}", line.step);
  for (const std::string& column : columns_) {
    text += ',';
    const auto value = std::find_if(line.values.begin(), line.values.end(),
                                    [&](const auto& entry) { return entry.first == column; });
    if (value != line.values.end()) {
      text += std::isfinite(value->second) ? fmt::format("{}", value->second) : "nan";
    }
  }
  return text + '\n';
}

void MetricsCsv::rewrite(std::span<const MetricLine> lines) {
  columns_.clear();
  for (const MetricLine& line : lines) {
    for (const auto& entry : line.values) {
      if (std::find(columns_.begin(), columns_.end(), entry.first) == columns_.end()) {
        columns_.push_back(entry.first);
      }
    }
  }
  std::string text = "step";
  for (const std::string& column : columns_) {
    text += ',' + cell(column);
  }
  text += '\n';
  for (const MetricLine& line : lines) {
    text += row(line);
  }
  file_.close();  // it would go on with the file that is replaced here
  write_file_atomically(path_, text);
  file_ = AppendFile(path_);
}

bool MetricsCsv::append(const MetricLine& line) {
  const bool fits =
      file_.is_open() &&
      std::all_of(line.values.begin(), line.values.end(), [&](const auto& entry) {
        return std::find(columns_.begin(), columns_.end(), entry.first) != columns_.end();
      });
  if (fits) {
    file_.append(row(line));
  }
  return fits;
}

}  // namespace lithe
