#include <doctest/doctest.h>

#include <vector>

#include "sample_ops.h"
#include "tensor/graph/rewrite.h"
#include "tensor/graph/verify.h"

using namespace lithe;
using namespace lithe::test;

TEST_CASE("readers are counted, with the first of them and the places of nodes") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {3});
  const ValueId a = g.emit(twice_op, {x});
  const ValueId b = g.emit(sum_op, {a, a});
  const ValueId c = g.emit(copy_op, {a});
  const Readers readers(g);
  CHECK(readers.count(x) == 1);
  CHECK(readers.count(a) == 3);
  CHECK(readers.first(a) == g.value(b).producer);
  CHECK(readers.count(c) == 0);
  CHECK(readers.position(g.value(c).producer) == 2);
}

TEST_CASE("a rewrite changes nothing that was there before its end") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {3});
  const ScopeId inner = g.add_scope("inner");
  const ScopeId outer = g.current_scope();
  g.set_scope(inner);
  g.set_phase(Phase::backward);
  const ValueId a = g.emit(twice_op, {x});
  g.set_scope(outer);
  g.set_phase(Phase::forward);
  const ValueId b = g.emit(copy_op, {a});
  g.mark_output(b, "result");
  g.mark_gradient(b);
  const NodeId old_twice = g.value(a).producer;
  const NodeId old_copy = g.value(b).producer;

  Rewrite rewrite(g);
  rewrite.at(old_twice);
  const ValueId other = g.emit(scratch_op, {x});
  rewrite.replace_node(old_twice, g.value(other).producer);
  CHECK(g.in(old_copy, 0) == a);
  CHECK(rewrite.is_erased(old_twice));
  CHECK_FALSE(rewrite.is_erased(old_copy));
  // What was replaced may be replaced by what reads it.
  rewrite.at(old_copy);
  const ValueId last = g.emit(twice_op, {a});
  rewrite.replace(b, last);
  rewrite.erase(old_copy);
  CHECK(rewrite.now(b) == last);
  CHECK(rewrite.now(x) == x);
  rewrite.finish();

  CHECK(g.order() == std::vector<NodeId>{g.value(other).producer, g.value(last).producer});
  CHECK(g.in(g.value(last).producer, 0) == other);
  CHECK(g.node(g.value(other).producer).scope == inner);
  CHECK(g.node(g.value(other).producer).phase == Phase::backward);
  CHECK(g.value(last).is_output);
  CHECK(g.value(last).is_gradient);
  CHECK(g.name(last) == "result");
  CHECK(g.current_scope() == outer);
  CHECK(g.phase() == Phase::forward);
  CHECK(g.cursor() == kNoNode);
  verify(g, "rewritten");
}
