// train --compare A B ...: memory of recipes, planned, and of runs, side by side.
#pragma once

#include <string>
#include <vector>

namespace lithe {

struct CompareArguments {
  // Recipes, folders of runs and key.path=value for all recipes, in any order. A path that has "="
  // before its first "/" counts as the latter; write ./NAME.
  std::vector<std::string> operands;
  std::string device = "auto";  // that recipes are planned for
  std::string html;             // the page; empty: none
  bool json = false;
};

// Prints the comparison. Throws UsageError, or FileError for what cannot be read or written; runs
// nothing.
void compare(const CompareArguments& args);

}  // namespace lithe
