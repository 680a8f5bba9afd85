// Any bytes as a recipe: it parses and its resolved form parses to the same, or a UsageError or
// FileError with the file's name says why not. Lines that begin with '=' are command line
// overrides.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "recipe/recipe.h"
#include "tensor/core/error.h"

namespace {

using lithe::recipe::Recipe;
using lithe::recipe::Schema;
using lithe::recipe::Type;

// One key of each type, and sections that are always there, optional and nested.
Schema make_schema() {
  Schema schedule;
  schedule.add({.key = "warmup", .type = Type::integer, .fallback = 10, .min = 0});
  Schema freeze;
  freeze.add({.key = "layers", .type = Type::string, .required = true});
  freeze.add({.key = "every", .type = Type::integer, .fallback = 1, .min = 1});
  freeze.section("schedule", schedule, "", true);
  Schema schema;
  schema.add({.key = "name", .type = Type::string, .fallback = "run"});
  schema.add({.key = "seed", .type = Type::integer, .fallback = 17});
  schema.add({.key = "optimizer.kind",
              .type = Type::string,
              .fallback = "adamw",
              .choices = {"adamw", "sgd"}});
  schema.add({.key = "optimizer.lr", .type = Type::number, .fallback = 1e-3, .min = 0, .max = 1});
  schema.add({.key = "optimizer.betas",
              .type = Type::number_list,
              .fallback = std::vector<double>{0.9, 0.999},
              .min = 0,
              .max = 1});
  schema.add({.key = "optimizer.no_decay", .type = Type::string_list});
  schema.add({.key = "data.shuffle", .type = Type::boolean, .fallback = true});
  schema.add({.key = "data.path", .type = Type::path});
  schema.section("freeze", freeze, "", true);
  return schema;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Schema schema = make_schema();
  std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  while (text.starts_with('=')) {
    const size_t end = text.find('\n');
    overrides.push_back(text.substr(1, end == std::string::npos ? end : end - 1));
    text.erase(0, end == std::string::npos ? end : end + 1);
  }
  std::string resolved;
  try {
    resolved = Recipe::parse(text, "fuzz.yaml", schema, overrides).resolved();
  } catch (const lithe::UsageError& error) {
    const std::string what = error.what();
    if (what.find("fuzz.yaml") == std::string::npos &&
        what.find("command line") == std::string::npos) {
      std::abort();
    }
    return 0;
  } catch (const lithe::FileError&) {  // over 1 MiB
    return 0;
  }
  // Not caught: what a recipe resolves to is a recipe.
  if (Recipe::parse(resolved, "fuzz.yaml", schema).resolved() != resolved) {
    std::abort();
  }
  return 0;
}
