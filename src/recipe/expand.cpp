#include "recipe/expand.h"

#include <cstdlib>
#include <string_view>

#include "recipe/document.h"
#include "recipe/format.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

constexpr int kDeepestFallback = 8;

bool is_name(std::string_view text) {
  if (text.empty() || (text[0] >= '0' && text[0] <= '9')) {
    return false;
  }
  for (const char c : text) {
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')) {
      return false;
    }
  }
  return true;
}

// The variable's value, "" when it is unset or empty.
std::string environment(const std::string& name, const std::string& where) {
  const char* value = std::getenv(name.c_str());
  std::string text = value ? value : "";
  if (!is_utf8(text)) {
    throw UsageError("recipe", "{}: environment variable {} is not UTF-8", where, name);
  }
  return text;
}

// Position of the '}' that ends the "${" whose inside starts at `from`.
size_t closing_brace(std::string_view text, size_t from, const std::string& where) {
  int open = 1;
  for (size_t i = from; i < text.size(); ++i) {
    if (text.substr(i, 2) == "${") {
      ++open;
    } else if (text[i] == '}' && --open == 0) {
      return i;
    }
  }
  throw UsageError("recipe", "{}: '{}': '${{' without its '}}'; write '$${{' for a literal '${{'",
                   where, excerpt(text));
}

std::string expand_variables(std::string_view text, const std::string& where, int depth) {
  if (depth > kDeepestFallback) {
    throw UsageError("recipe", "{}: variables nested deeper than {}", where, kDeepestFallback);
  }
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i, 3) == "$${") {
      out += "${";
      i += 3;
    } else if (text.substr(i, 2) == "${") {
      const size_t end = closing_brace(text, i + 2, where);
      const std::string_view inside = text.substr(i + 2, end - i - 2);
      const size_t dash = inside.find(":-");
      const std::string name(inside.substr(0, dash));
      if (!is_name(name)) {
        throw UsageError("recipe", "{}: '{}' is not the name of an environment variable", where,
                         excerpt(name));
      }
      const std::string value = environment(name, where);
      if (!value.empty()) {
        out += value;
      } else if (dash != std::string_view::npos) {
        out += expand_variables(inside.substr(dash + 2), where, depth + 1);
      } else if (!std::getenv(name.c_str())) {
        throw UsageError("recipe",
                         "{}: environment variable {} is not set; set it or write "
                         "${{{}:-fallback}}",
                         where, name, name);
      }
      i = end + 1;
    } else {
      out += text[i++];
    }
  }
  return out;
}

}  // namespace

std::string expand(const std::string& text, const std::string& where) {
  std::string out = expand_variables(text, where, 0);
  if (out == "~" || out.starts_with("~/")) {
    const std::string home = environment("HOME", where);
    if (!home.starts_with('/')) {
      throw UsageError("recipe", "{}: '~' needs HOME to be an absolute path, it is '{}'", where,
                       excerpt(home));
    }
    out.replace(0, 1, home);
  }
  return out;
}

}  // namespace lithe::recipe
