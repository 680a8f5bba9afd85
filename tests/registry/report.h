// Collects checks: a line on stdout for each failure, a summary, and a JSON record each.
#pragma once

#include <nlohmann/json.hpp>

#include <set>
#include <string>
#include <string_view>

#include "registry/registry.h"

namespace lithe::registry {

class Report {
 public:
  explicit Report(std::string_view mode) : mode_(mode) {}

  // `what`: which check; `detail`: the figures, printed when it fails.
  void check(bool ok, const Case& c, std::string_view what, std::string_view detail,
             double figure = 0);
  // A check that concerns no single case.
  void check(bool ok, std::string_view subject, std::string_view detail);
  void skip(std::string_view reason) { skipped_.emplace(reason); }
  void record(nlohmann::json entry) { records_.push_back(std::move(entry)); }

  int failed() const { return failed_; }
  // Prints "N passed, N failed" and why anything was skipped.
  void print_summary() const;
  nlohmann::json json() const;

 private:
  void count(bool ok, std::string_view line);

  std::string mode_;
  int passed_ = 0;
  int failed_ = 0;
  std::multiset<std::string> skipped_;
  nlohmann::json records_ = nlohmann::json::array();
};

// "[op] name (shapes of the inputs)".
std::string describe(const Case& c);

}  // namespace lithe::registry
