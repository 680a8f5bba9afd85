#include "recipe/format.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "recipe/nearest.h"

namespace lithe::recipe {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Texts that no YAML reader takes for anything but a string may stand without quotes.
bool plain_is_safe(std::string_view text) {
  static constexpr std::array<std::string_view, 12> kWords = {
      "null", "true", "false", "on", "off", "yes", "no", "y", "n", "inf", "nan", "infinity"};
  if (text.empty() || !(is_letter(text[0]) || text[0] == '_' || text[0] == '/')) {
    return false;
  }
  const auto safe = [](char c) {
    return is_letter(c) || is_digit(c) || c == '_' || c == '/' || c == '.' || c == '-' || c == '+';
  };
  return std::all_of(text.begin(), text.end(), safe) &&
         std::none_of(kWords.begin(), kWords.end(),
                      [&](std::string_view word) { return edit_distance(text, word) == 0; });
}

// Control characters as escapes; quotes and backslashes too where the text goes between quotes.
std::string escaped(std::string_view text, bool between_quotes) {
  std::string out;
  for (const char c : text) {
    if (!between_quotes && (c == '"' || c == '\\')) {
      out += c;
      continue;
    }
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string string_text(std::string_view value) {
  // A literal "${" must not be expanded when it is read again.
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    if (value.substr(i, 2) == "${") {
      text += '$';
    }
    text += value[i];
  }
  return plain_is_safe(text) ? text : '"' + escaped(text, true) + '"';
}

template <typename T, typename Write>
std::string list_text(const std::vector<T>& values, Write write) {
  std::vector<std::string> parts;
  parts.reserve(values.size());
  for (const T& value : values) {
    parts.push_back(write(value));
  }
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

struct YamlText {
  std::string operator()(std::monostate) const { return ""; }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const { return number_text(value); }
  std::string operator()(const std::string& value) const { return string_text(value); }
  std::string operator()(const std::vector<std::string>& value) const {
    return list_text(value, string_text);
  }
  std::string operator()(const std::vector<double>& value) const {
    return list_text(value, number_text);
  }
};

// A bound of an integer option reads "8", of a number option "0.5" or "8".
std::string bound_text(double bound) { return fmt::format("{}", bound); }

// long double holds every int64 and every double exactly on x86.
std::optional<std::string> range_violation(const Option& option, long double value,
                                           const std::string& text) {
  if (option.min && value < static_cast<long double>(*option.min)) {
    return fmt::format("{} is below the least allowed value {}", text, bound_text(*option.min));
  }
  if (option.max && value > static_cast<long double>(*option.max)) {
    return fmt::format("{} is above the greatest allowed value {}", text, bound_text(*option.max));
  }
  return std::nullopt;
}

std::optional<std::string> choice_violation(const Option& option, const std::string& value) {
  const auto& choices = option.choices;
  if (choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end()) {
    return std::nullopt;
  }
  std::string text = fmt::format("'{}' is not one of {}", excerpt(value), fmt::join(choices, ", "));
  if (const std::string near = nearest_name(value, choices); !near.empty()) {
    text += fmt::format("; did you mean '{}'?", near);
  }
  return text;
}

}  // namespace

std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find('.') == std::string::npos) {
    text.insert(std::min(text.find('e'), text.size()), ".0");
  }
  return text;
}

std::string yaml_text(const Default& value) { return std::visit(YamlText{}, value); }

std::string excerpt(std::string_view text) {
  constexpr size_t kShown = 72;
  if (text.size() <= kShown) {
    return escaped(text, false);
  }
  size_t end = kShown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;  // not inside a UTF-8 sequence
  }
  return escaped(text.substr(0, end), false) + "...";
}

std::string range_text(const Option& option) {
  if (!option.choices.empty()) {
    return fmt::format("{}", fmt::join(option.choices, ", "));
  }
  if (option.min && option.max) {
    return fmt::format("{} to {}", bound_text(*option.min), bound_text(*option.max));
  }
  if (option.min) {
    return fmt::format("at least {}", bound_text(*option.min));
  }
  return option.max ? fmt::format("at most {}", bound_text(*option.max)) : "";
}

std::optional<std::string> violation(const Option& option, const Default& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    const std::string text = fmt::format("{}", *integer);
    auto broken = range_violation(option, static_cast<long double>(*integer), text);
    return broken ? broken : choice_violation(option, text);
  }
  if (const auto* number = std::get_if<double>(&value)) {
    return range_violation(option, static_cast<long double>(*number), bound_text(*number));
  }
  if (const auto* text = std::get_if<std::string>(&value)) {
    return choice_violation(option, *text);
  }
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    for (const std::string& element : *texts) {
      if (auto broken = choice_violation(option, element)) {
        return broken;
      }
    }
  }
  if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    for (const double element : *numbers) {
      const auto wide = static_cast<long double>(element);
      if (auto broken = range_violation(option, wide, bound_text(element))) {
        return broken;
      }
    }
  }
  return std::nullopt;
}

}  // namespace lithe::recipe
