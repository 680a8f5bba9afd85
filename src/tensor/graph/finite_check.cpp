#include "tensor/graph/finite_check.h"

#include <cmath>

namespace lithe {

std::optional<NotFinite> find_not_finite(const Tensor& tensor) {
  if (!is_floating(tensor.dtype())) {
    return std::nullopt;
  }
  const Tensor wide = tensor.to(DType::f64);
  const auto values = wide.as<double>();
  NotFinite out;
  out.shape = tensor.shape();
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) && out.count++ == 0) {
      out.first = static_cast<int64_t>(i);
      out.example = values[i];
    }
  }
  return out.count == 0 ? std::nullopt : std::optional(out);
}

std::optional<NotFinite> first_not_finite(Executor& executor, const Program& program, int end) {
  const Graph& g = program.graph();
  const auto check = [&](ValueId v, std::string_view op) -> std::optional<NotFinite> {
    if (!is_floating(g.dtype(v))) {
      return std::nullopt;
    }
    std::optional<NotFinite> bad = find_not_finite(executor.read(program, v));
    if (bad) {
      bad->value = g.name(v);
      bad->op = op;
    }
    return bad;
  };
  for (ValueId v : g.leaves()) {
    if (std::optional<NotFinite> bad = check(v, "")) {
      return bad;
    }
  }
  for (int p = 0; p < end; ++p) {
    executor.run(program, p, p + 1);
    const NodeId n = program.plan().order[static_cast<size_t>(p)];
    for (ValueId v : g.outputs(n)) {
      if (std::optional<NotFinite> bad = check(v, g.node(n).op->name)) {
        return bad;
      }
    }
  }
  return std::nullopt;
}

}  // namespace lithe
