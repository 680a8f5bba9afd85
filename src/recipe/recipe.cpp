#include "recipe/recipe.h"

#include <fmt/format.h>

#include <utility>

#include "recipe/files.h"
#include "recipe/state.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

[[noreturn]] void refuse_getter(const Option& option, std::string_view wanted) {
  throw UsageError("recipe", "the program asks for key '{}' as {}, its schema says {}", option.key,
                   wanted, type_name(option.type));
}

}  // namespace

Recipe::Recipe(std::shared_ptr<const State> state, std::string prefix)
    : state_(std::move(state)), prefix_(std::move(prefix)) {}

Recipe Recipe::load(const std::string& path, const Schema& schema,
                    std::span<const std::string> overrides) {
  auto state = std::make_shared<State>(schema, path);
  for (const RecipeFile& file : read_with_bases(path)) {
    state->apply_file(file.root, file.source);
  }
  for (const std::string& text : overrides) {
    state->apply_override(text);
  }
  state->finish();
  return Recipe(std::move(state));
}

Recipe Recipe::parse(const std::string& text, const std::string& name, const Schema& schema,
                     std::span<const std::string> overrides) {
  auto state = std::make_shared<State>(schema, name);
  const Source source{name};
  const Node root = read_document(text, source);
  if (const Node* base = base_of(root)) {
    throw UsageError("recipe", "{}: 'base' is for recipe files, this text is in memory",
                     source.at(base->key_line));
  }
  state->apply_file(root, source);
  for (const std::string& override_text : overrides) {
    state->apply_override(override_text);
  }
  state->finish();
  return Recipe(std::move(state));
}

bool Recipe::boolean(const std::string& key) const {
  const Default& value = state_->required_value(full(key));
  if (const auto* flag = std::get_if<bool>(&value)) {
    return *flag;
  }
  refuse_getter(state_->option(full(key)), "boolean");
}

int64_t Recipe::integer(const std::string& key) const {
  const Default& value = state_->required_value(full(key));
  if (const auto* integer_value = std::get_if<int64_t>(&value)) {
    return *integer_value;
  }
  refuse_getter(state_->option(full(key)), "integer");
}

double Recipe::number(const std::string& key) const {
  const Default& value = state_->required_value(full(key));
  if (const auto* number_value = std::get_if<double>(&value)) {
    return *number_value;
  }
  if (const auto* integer_value = std::get_if<int64_t>(&value)) {
    return static_cast<double>(*integer_value);
  }
  refuse_getter(state_->option(full(key)), "number");
}

std::string Recipe::string(const std::string& key) const {
  const Default& value = state_->required_value(full(key));
  if (const auto* text = std::get_if<std::string>(&value)) {
    return *text;
  }
  refuse_getter(state_->option(full(key)), "string");
}

std::vector<std::string> Recipe::strings(const std::string& key) const {
  const Default& value = state_->required_value(full(key));
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    return *texts;
  }
  refuse_getter(state_->option(full(key)), "list of strings");
}

std::vector<double> Recipe::numbers(const std::string& key) const {
  const Default& value = state_->required_value(full(key));
  if (const auto* list = std::get_if<std::vector<double>>(&value)) {
    return *list;
  }
  refuse_getter(state_->option(full(key)), "list of numbers");
}

bool Recipe::has(const std::string& key) const {
  return state_->value(state_->option(full(key)).key) != nullptr;
}

bool Recipe::given(const std::string& key) const {
  return state_->given(state_->option(full(key)).key);
}

bool Recipe::enabled(const std::string& section) const {
  state_->check_section(full(section));
  return state_->enabled(full(section));
}

std::string Recipe::where(const std::string& key) const {
  if (!state_->schema().find_section(full(key))) {
    state_->option(full(key));
  }
  return state_->where(full(key));
}

Recipe Recipe::section(const std::string& prefix) const {
  state_->check_section(full(prefix));
  return Recipe(state_, full(prefix) + ".");
}

std::string Recipe::resolved() const {
  return state_->yaml(prefix_.empty() ? "" : prefix_.substr(0, prefix_.size() - 1), 0);
}

}  // namespace lithe::recipe
