#include "registry/report.h"

#include <fmt/core.h>

namespace lithe::registry {

std::string describe(const Case& c) {
  std::string shapes;
  for (const Input& input : c.inputs) {
    shapes += fmt::format("{}{}", shapes.empty() ? "" : " ", input.shape);
  }
  return fmt::format("[{}] {} ({})", c.op->name, c.name, shapes);
}

void Report::count(bool ok, std::string_view line) {
  ++(ok ? passed_ : failed_);
  if (!ok) {
    fmt::print("FAILED {}\n", line);
  }
}

void Report::check(bool ok, const Case& c, std::string_view what, std::string_view detail,
                   double figure) {
  count(ok, ok ? std::string_view{} : fmt::format("{}: {}: {}", describe(c), what, detail));
  records_.push_back(
      {{"op", c.op->name}, {"case", c.name}, {"check", what}, {"ok", ok}, {"figure", figure}});
}

void Report::check(bool ok, std::string_view subject, std::string_view detail) {
  count(ok, fmt::format("{}: {}", subject, detail));
  records_.push_back({{"check", subject}, {"ok", ok}, {"detail", detail}});
}

void Report::print_summary() const {
  for (auto it = skipped_.begin(); it != skipped_.end(); it = skipped_.upper_bound(*it)) {
    fmt::print("skipped {} x: {}\n", skipped_.count(*it), *it);
  }
  fmt::print("op_registry {}: {} passed, {} failed\n", mode_, passed_, failed_);
}

nlohmann::json Report::json() const {
  return {{"mode", mode_}, {"passed", passed_}, {"failed", failed_}, {"records", records_}};
}

}  // namespace lithe::registry
