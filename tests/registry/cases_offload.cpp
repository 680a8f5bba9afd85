#include "registry/registry.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/offload.h"

namespace lithe::registry {

// There and back, of two values, as a step does it: the second copy behind the wait of the first.
void add_offload_cases(std::vector<Case>& cases) {
  for (const Shape& shape :
       {Shape{}, {1}, {7}, {3, 5}, {0, 4}, {129}, {2, 1, 3, 1, 5, 2}, {5, 4099}, {300, 1024}}) {
    for (const OpDef* op : {&offload_store_op, &offload_load_op, &offload_wait_op}) {
      cases.push_back({.op = op,
                       .name = fmt::format("{}", shape),
                       .inputs = {{.shape = shape, .differentiable = false},
                                  {.shape = shape, .differentiable = false}},
                       .build = [](Graph& g, std::span<const ValueId> in) {
                         const ValueId a = scale(g, in[0], 2.0);
                         const ValueId kept_a = offload_wait(g, offload_store(g, a), a);
                         const ValueId b = scale(g, in[1], 3.0);
                         const ValueId kept_b = offload_wait(g, offload_store(g, b), b);
                         const ValueId back_b = offload_wait(g, offload_load(g, kept_b));
                         const ValueId again = offload_load(g, kept_a);
                         const ValueId y = scale(g, back_b, -1.0);
                         const ValueId back_a = offload_wait(g, again);
                         return std::vector<ValueId>{scale(g, back_a, 1.0), y};
                       }});
    }
  }
}

}  // namespace lithe::registry
