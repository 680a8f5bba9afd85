#include "data/json_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace lithe {
namespace {

using nlohmann::json;

class Adapter final : public nlohmann::json_sax<json> {
 public:
  Adapter(JsonEvents& events, int max_depth) : events_(events), max_depth_(max_depth) {}

  bool null() override {
    events_.null();
    return true;
  }
  bool boolean(bool value) override {
    events_.boolean(value);
    return true;
  }
  bool number_integer(number_integer_t value) override {
    events_.number(fmt::format_int(value).c_str(), value);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    const bool fits = value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    events_.number(fmt::format_int(value).c_str(),
                   fits ? std::optional(static_cast<int64_t>(value)) : std::nullopt);
    return true;
  }
  bool number_float(number_float_t, const string_t& digits) override {
    events_.number(digits, std::nullopt);
    return true;
  }
  bool string(string_t& value) override {
    events_.string(value);
    return true;
  }
  bool binary(binary_t&) override { return true; }  // not of a text
  bool key(string_t& name) override {
    events_.key(name);
    return true;
  }
  bool start_object(std::size_t) override {
    events_.begin_object();
    return deeper();
  }
  bool end_object() override {
    --depth_;
    events_.end_object();
    return true;
  }
  bool start_array(std::size_t) override {
    events_.begin_array();
    return deeper();
  }
  bool end_array() override {
    --depth_;
    events_.end_array();
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const json::exception& error) override {
    position_ = position;
    // The library's sentence repeats the token, which may be the whole file.
    std::string_view what = error.what();
    for (const std::string_view lead : {"syntax error while parsing ", "] "}) {
      if (const size_t at = what.find(lead); at != std::string_view::npos) {
        what.remove_prefix(at + lead.size());
        break;
      }
    }
    what_ = what.substr(0, std::min({what.find("; last read"), what.size(), size_t{120}}));
    return false;
  }

  std::string what() const {
    return what_.empty() ? fmt::format("nested deeper than {} levels", max_depth_) : what_;
  }
  std::optional<size_t> position() const { return position_; }

 private:
  bool deeper() { return ++depth_ <= max_depth_; }

  JsonEvents& events_;
  int max_depth_;
  int depth_ = 0;
  std::optional<size_t> position_;
  std::string what_;
};

}  // namespace

std::optional<JsonProblem> read_json(std::string_view text, JsonEvents& events, int max_depth) {
  Adapter adapter(events, max_depth);
  if (json::sax_parse(text.begin(), text.end(), &adapter)) {
    return std::nullopt;
  }
  JsonProblem problem;
  problem.what = adapter.what();
  if (const auto position = adapter.position()) {
    const std::string_view before = text.substr(0, *position > 0 ? *position - 1 : 0);
    problem.line += std::count(before.begin(), before.end(), '\n');
    const size_t newline = before.rfind('\n');
    problem.column += static_cast<int64_t>(
        newline == std::string_view::npos ? before.size() : before.size() - newline - 1);
  }
  return problem;
}

}  // namespace lithe
