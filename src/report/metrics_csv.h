// metrics.csv: the lines of metrics.jsonl as a table for spreadsheets and data frames. One row a
// line, one column a key in the order of first appearance, "step" first; a cell is empty where the
// line lacks the key and "nan" where its number was not finite.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "report/run_data.h"
#include "tensor/core/append_file.h"

namespace lithe {

class MetricsCsv {
 public:
  explicit MetricsCsv(std::filesystem::path path) : path_(std::move(path)) {}

  // Replaces the file by these lines. Throws FileError.
  void rewrite(std::span<const MetricLine> lines);
  // One more row. False, and nothing is written, before the first rewrite() and when the line has
  // a key without a column: rewrite then. Throws FileError.
  bool append(const MetricLine& line);
  void sync() { file_.sync(); }

 private:
  std::string row(const MetricLine& line) const;

  std::filesystem::path path_;
  std::vector<std::string> columns_;  // without "step"
  AppendFile file_;
};

}  // namespace lithe
