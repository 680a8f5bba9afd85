#include "tensor/ops/dropout.h"

namespace lithe {
namespace {

void infer(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  const auto attrs = c.attr<DropoutAttrs>();
  const double p = attrs.p;
  if (!(p >= 0 && p < 1)) {
    c.fail("p is {}; give a probability of zero in [0, 1)", p);
  }
  if (attrs.bits != 8 && attrs.bits != 16) {
    c.fail("masks take 8 or 16 random bits an element, not {}", attrs.bits);
  }
  if (c.dtype(1) != DType::i64) {
    c.fail("rng is {}; int64 [2] (seed, step) is wanted", dtype_name(c.dtype(1)));
  }
  c.expect_shape(1, {2}, "rng");
  c.output(c.dtype(0), c.shape(0));
}

void grad(GradContext& c) {
  if (c.wants(0)) {
    // The same mask again, from the counter.
    c.set(0, c.graph.emit(dropout_op, {c.dout(), c.in(1)}, c.attr<DropoutAttrs>()));
  }
}

}  // namespace

const OpDef dropout_op = {.name = "dropout",
                          .infer = infer,
                          .grad = grad,
                          .aliases = {{{Alias::in_place, 0, 0}}},
                          .cpu = dropout_cpu};

ValueId dropout(Graph& graph, ValueId x, ValueId rng, const DropoutAttrs& attrs) {
  return attrs.p == 0 ? x : graph.emit(dropout_op, {x, rng}, attrs);
}

}  // namespace lithe
