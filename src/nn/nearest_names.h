// Which tensor names of one file are likely those of another, for messages about thousands of names
// that do not fit.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lithe::nn {

using NearestNames = std::map<std::string, std::string, std::less<>>;

// Adds to `nearest`, for each of `names` that is near to one of `others`, the nearest by edits
// (recipe/nearest.h). Few names are all compared. Of many, only those that share a rare part of the
// dotted name or are neighbours in alphabetical order, read from either end: time grows with the
// number of names and not with its square, so a far name may be missed.
void add_nearest_names(const std::vector<std::string>& names,
                       const std::vector<std::string>& others, NearestNames& nearest);

}  // namespace lithe::nn
