#include "compress/selector.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "recipe/nearest.h"

namespace lithe {
namespace {

int parse_index(std::string_view text, int count, std::string_view whole, std::string_view key) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw UsageError(key, "'{}' is no range of blocks; write for example 0-2, 0-2,5, last 2 or all",
                     whole);
  }
  if (value < 0 || value >= count) {
    throw UsageError(key, "block {} of '{}' is outside of 0-{}: the model has {} blocks", value,
                     whole, count - 1, count);
  }
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') {
    text.remove_prefix(1);
  }
  while (!text.empty() && text.back() == ' ') {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace

std::vector<int> parse_blocks(std::string_view text, int count, std::string_view key) {
  std::vector<int> out;
  if (trim(text) == "all") {
    out.resize(static_cast<size_t>(count));
    std::iota(out.begin(), out.end(), 0);
    return out;
  }
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    std::string_view part = trim(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    int from = 0;
    int to = 0;
    if (part.starts_with("last ")) {
      // "last N" of all blocks: N may be as large as the count itself.
      const int n = parse_index(trim(part.substr(5)), count + 1, text, key);
      from = count - n;
      to = count - 1;
    } else if (const size_t dash = part.find('-'); dash != std::string_view::npos) {
      from = parse_index(trim(part.substr(0, dash)), count, text, key);
      to = parse_index(trim(part.substr(dash + 1)), count, text, key);
      if (from > to) {
        throw UsageError(key, "the range {}-{} of '{}' is empty; write {}-{}", from, to, text, to,
                         from);
      }
    } else {
      from = to = parse_index(part, count, text, key);
    }
    for (int i = from; i <= to; ++i) {
      out.push_back(i);
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  if (out.empty()) {
    throw UsageError(key, "'{}' names no block; the model has {}", text, count);
  }
  return out;
}

std::vector<NamedParameter> all_parameters(const nn::Module& model) {
  std::vector<NamedParameter> out;
  model.visit([&](const nn::Module& module) {
    for (const nn::Parameter& p : module.parameters()) {
      out.push_back({model.slots()[p.slot].name, p.slot, module.block(), p.layout});
    }
  });
  return out;
}

std::string nearest_name(std::string_view pattern, const std::vector<NamedParameter>& parameters) {
  std::string best;
  size_t distance = SIZE_MAX;
  for (const NamedParameter& p : parameters) {
    const size_t d = recipe::edit_distance(pattern, p.name);
    if (d < distance) {
      distance = d;
      best = p.name;
    }
  }
  return best;
}

}  // namespace lithe
