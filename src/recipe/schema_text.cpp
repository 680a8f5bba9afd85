// A schema as text for people: --help and the docs.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>

#include "recipe/format.h"
#include "recipe/schema.h"

namespace lithe::recipe {
namespace {

std::string default_text(const Option& option) {
  if (option.required) {
    return "required";
  }
  return std::holds_alternative<std::monostate>(option.fallback) ? "none"
                                                                 : yaml_text(option.fallback);
}

// Key, type, default, range or choices, help.
using Row = std::array<std::string, 5>;

Row row_of(const Option& option) {
  const std::string range = range_text(option);
  return {option.key, std::string(type_name(option.type)), default_text(option),
          range.empty() ? "-" : range, option.help};
}

std::string section_text(const Section& section) {
  std::string text = section.key;
  if (section.optional) {
    text += " (optional, off by default)";
  }
  return section.help.empty() ? text : text + ": " + section.help;
}

// Sections and options depth first, in the order added.
void walk(const Schema& schema, const std::string& at,
          const std::function<void(const Section&)>& on_section,
          const std::function<void(const Option&)>& on_option) {
  for (const std::string& key : schema.children(at)) {
    if (const Option* option = schema.find(key)) {
      on_option(*option);
    } else if (const Section* section = schema.find_section(key)) {
      on_section(*section);
      walk(schema, key, on_section, on_option);
    }
  }
}

std::string markdown_cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += ' ';
      continue;
    }
    if (c == '|') {
      out += '\\';
    }
    out += c;
  }
  return out;
}

}  // namespace

std::string Schema::help() const {
  // A few long defaults or choice lists must not push every help text off the screen.
  constexpr size_t kWidestColumn = 36;
  std::array<size_t, 4> width{};
  for (const Option& option : options_) {
    const Row row = row_of(option);
    for (size_t column = 0; column < width.size(); ++column) {
      if (row[column].size() <= kWidestColumn || column == 0) {
        width[column] = std::max(width[column], row[column].size());
      }
    }
  }
  std::string text;
  walk(
      *this, "", [&](const Section& section) { text += section_text(section) + "\n"; },
      [&](const Option& option) {
        const Row row = row_of(option);
        text += fmt::format("  {:<{}}  {:<{}}  {:<{}}  {:<{}}  {}\n", row[0], width[0], row[1],
                            width[1], row[2], width[2], row[3], width[3], row[4]);
      });
  return text;
}

std::string Schema::markdown() const {
  std::string text = "| key | type | default | range | help |\n|---|---|---|---|---|\n";
  walk(
      *this, "",
      [&](const Section& section) {
        if (!section.help.empty() || section.optional) {
          text += fmt::format("| **`{}`** | {} | {} | | {} |\n", section.key, "section",
                              section.optional ? "off" : "", markdown_cell(section.help));
        }
      },
      [&](const Option& option) {
        const Row row = row_of(option);
        text += fmt::format("| `{}` | {} | {} | {} | {} |\n", row[0], row[1], markdown_cell(row[2]),
                            markdown_cell(row[3]), markdown_cell(row[4]));
      });
  return text;
}

}  // namespace lithe::recipe
