// JSON read as events, so that a large file is never held as a tree: what is wanted is copied out
// as it passes by.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lithe {

// What a JSON text holds, in its order. The default of each event is to ignore it. A handler may
// throw; it may move strings out.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void begin_object() {}
  virtual void end_object() {}
  virtual void begin_array() {}
  virtual void end_array() {}
  virtual void key(std::string& /*name*/) {}
  virtual void string(std::string& /*value*/) {}
  // `integer` is set where the number is one and fits.
  virtual void number(std::string_view /*digits*/, std::optional<int64_t> /*integer*/) {}
  virtual void boolean(bool /*value*/) {}
  virtual void null() {}
};

struct JsonProblem {
  int64_t line = 1;  // from 1, as column
  int64_t column = 1;
  std::string what;
};

// Feeds all of `json` (one value, UTF-8) to `events`. Returns what is wrong with it, if anything:
// syntax, bytes that are not UTF-8, numbers beyond a double, nesting deeper than `max_depth`.
std::optional<JsonProblem> read_json(std::string_view json, JsonEvents& events, int max_depth = 64);

}  // namespace lithe
