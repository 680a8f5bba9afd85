// Finds where numbers stop being numbers: infinities and NaN, by the name of the value that shows
// them first.
#pragma once

#include <optional>
#include <string>

#include "tensor/graph/executor.h"

namespace lithe {

struct NotFinite {
  std::string value;  // its name in the graph
  std::string op;     // of its producer; empty for a leaf
  Shape shape;
  int64_t count = 0;  // elements that are infinite or NaN
  int64_t first = 0;  // index of the first of them, row-major
  double example = 0;
};

// Of a tensor on the host; nothing when all elements are finite or the dtype has no infinities.
std::optional<NotFinite> find_not_finite(const Tensor& tensor);

// Runs the nodes [0, end) of a program whose inputs have been written, checks slots, inputs and
// each output, and returns the first that is not finite. Slow: reads every value back.
std::optional<NotFinite> first_not_finite(Executor& executor, const Program& program, int end);

}  // namespace lithe
