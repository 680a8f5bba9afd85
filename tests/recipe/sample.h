// The schema, and the ways to catch a refusal, that the recipe tests share.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "recipe/recipe.h"
#include "tensor/core/error.h"

namespace lithe::recipe {

inline Schema sample_schema() {
  Schema freeze;
  freeze.add({.key = "layers", .type = Type::string, .help = "layer range", .required = true});
  freeze.add({.key = "every", .type = Type::integer, .fallback = 1, .min = 1});
  Schema schedule;
  schedule.add({.key = "warmup", .type = Type::integer, .fallback = 10, .help = "steps"});
  freeze.section("schedule", schedule, "how freezing changes", true);

  Schema schema;
  schema.add({.key = "name", .type = Type::string, .fallback = "run", .help = "name of the run"});
  schema.add({.key = "seed", .type = Type::integer, .fallback = 17, .help = "random seed"});
  schema.add({.key = "optimizer.kind",
              .type = Type::string,
              .fallback = "adamw",
              .help = "update rule",
              .choices = {"adamw", "sgd"}});
  schema.add({.key = "optimizer.lr",
              .type = Type::number,
              .fallback = 1e-3,
              .help = "learning rate",
              .min = 0,
              .max = 1});
  schema.add({.key = "optimizer.betas",
              .type = Type::number_list,
              .fallback = std::vector<double>{0.9, 0.999},
              .min = 0,
              .max = 1});
  schema.add({.key = "optimizer.no_decay", .type = Type::string_list});
  schema.add({.key = "data.shuffle", .type = Type::boolean, .fallback = true});
  schema.add({.key = "data.path", .type = Type::path});
  schema.section("freeze", freeze, "keep layers as they are", true);
  return schema;
}

inline Recipe parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return Recipe::parse(text, "vit.yaml", sample_schema(), overrides);
}

struct Refusal {
  std::string message;
  int code = 0;
};

// What `attempt` is refused with; an empty refusal when it goes through.
template <typename Attempt>
Refusal refusal(Attempt attempt) {
  try {
    attempt();
  } catch (const Error& error) {
    return {error.what(), static_cast<int>(error.code())};
  }
  return {};
}

// Checks exit code and the parts that the message must hold.
template <typename Attempt>
void check_refused(int code, const std::vector<std::string>& parts, Attempt attempt) {
  const Refusal refused = refusal(attempt);
  INFO(refused.message);
  CHECK(refused.code == code);
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(refused.message.find(part) != std::string::npos);
  }
}

inline void check_text_refused(const std::string& text, const std::vector<std::string>& parts,
                               const std::vector<std::string>& overrides = {}) {
  check_refused(2, parts, [&] { parse(text, overrides); });
}

}  // namespace lithe::recipe
