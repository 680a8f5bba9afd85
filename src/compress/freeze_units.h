// What scheduled freezing chooses among: SlimFit's units (arXiv 2305.18513), one weight tensor
// each.
#pragma once

#include <string>
#include <vector>

#include "compress/selector.h"

namespace lithe {

// In the model's order, of `patterns` = {"auto"}:
//   - every weight of two or more dimensions (tables, class token, projections, linear layers);
//   - the scale of every norm up to the end of the last repeated block: not that of a final norm;
//   - not the head of a regression, which is always trained.
// Other patterns choose by name among all weights of two or more dimensions and all scales of
// norms; one that matches none of them throws UsageError. `always` (globs) takes out again. Biases,
// the shifts of norms and what an earlier pass has frozen are never units.
std::vector<NamedParameter> freeze_units(const nn::Model& model,
                                         const std::vector<std::string>& patterns,
                                         const std::vector<std::string>& always);

}  // namespace lithe
