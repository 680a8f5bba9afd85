// What a layer norm keeps for backward in other forms than its input and two statistics a row.
//
// A norm whose scale is frozen needs y = (x - mean) / std and std only (SlimFit, arXiv 2305.18513):
// y is coded, and backward gets y std, whose mean is 0, in the place of x. It gives the norm's
// gradient the same third term: dx = (a - mean(a) - y mean(a y)) / std with a = dy gamma.
//
// A norm whose input is kept whole need not keep the statistics: they follow from it.
#pragma once

#include <string>

#include "compress/codec_format.h"
#include "compress/saved_values.h"

namespace lithe {

// Why x, a norm's saved input, cannot be kept in normalised form, or "".
std::string normalized_refusal(const Graph& graph, const SavedValue& x);
// Bytes of the means, which are not kept then.
int64_t normalized_saving(const Graph& graph, const SavedValue& x);
// Keeps the normalised x in `format`; rng as CodecFormat::encode's.
void keep_normalized(Graph& graph, const SavedValue& x, const CodecFormat& format, ValueId rng);

// The input of the norm that `statistics` are of, as backward reads it.
ValueId norm_input_of(const Graph& graph, const SavedValue& statistics);
// Why a norm's mean or 1 / std cannot be computed again from its input, or "".
std::string statistics_refusal(const Graph& graph, const SavedValue& statistics);
// Backward computes both, where it reads one, right before.
void regenerate_statistics(Graph& graph, const SavedValue& statistics);

}  // namespace lithe
