#include <doctest/doctest.h>

#include <vector>

#include "sample_ops.h"
#include "tensor/graph/verify.h"

using namespace lithe;
using namespace lithe::test;

namespace {

struct Chain {
  SlotTable slots;
  Graph g{slots};
  ValueId x = g.input("x", DType::f32, {3});
  ValueId a = g.emit(twice_op, {x});
  ValueId b = g.emit(copy_op, {a});
};

std::vector<std::string_view> op_names(const Graph& g) {
  std::vector<std::string_view> out;
  for (NodeId n : g.order()) {
    out.push_back(g.node(n).op->name);
  }
  return out;
}

bool is_twice(const Graph& g, NodeId n) { return g.node(n).op == &twice_op; }

}  // namespace

TEST_CASE("nodes go before the cursor, at the end without one") {
  Chain c;
  c.g.set_cursor(c.g.value(c.b).producer);
  c.g.emit(scratch_op, {c.a});
  c.g.set_cursor(c.g.first());
  c.g.emit(opaque_op, {c.x});
  c.g.set_cursor(kNoNode);
  c.g.emit(sum_op, {c.a, c.b});
  CHECK(op_names(c.g) ==
        std::vector<std::string_view>{"opaque", "twice", "scratch", "copy", "sum"});
  verify(c.g, "test");
}

TEST_CASE("erasing the node at the cursor moves the cursor to the next one") {
  Chain c;
  const NodeId twice_node = c.g.value(c.a).producer;
  c.g.set_cursor(twice_node);
  c.g.erase(twice_node);
  CHECK(c.g.cursor() == c.g.value(c.b).producer);
  c.g.erase(twice_node);  // a second time is nothing
  CHECK(op_names(c.g) == std::vector<std::string_view>{"copy"});
  CHECK(c.g.first() == c.g.last());
}

TEST_CASE("replace_uses follows chains of replacements") {
  Chain c;
  const ValueId d = c.g.emit(copy_op, {c.x});
  const ValueId e = c.g.emit(sum_op, {c.b, c.a});
  std::vector<ValueId> to(static_cast<size_t>(c.g.value_count()), kNoValue);
  to[static_cast<size_t>(c.b)] = c.a;
  to[static_cast<size_t>(c.a)] = d;
  c.g.replace_uses(to);
  const NodeId n = c.g.value(e).producer;
  CHECK(c.g.in(n, 0) == d);
  CHECK(c.g.in(n, 1) == d);
}

TEST_CASE("dead nodes go, chains of them too; effects and outputs stay") {
  SlotTable slots;
  const SlotId w = slots.add({.name = "w", .shape = {3}, .kind = SlotKind::state});
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {3});
  const ValueId kept = g.emit(twice_op, {x});
  g.emit(copy_op, {g.emit(scratch_op, {kept})});  // nobody reads the end
  const ValueId halves = g.emit(split_op, {x});   // only the second output is read
  const ValueId second = g.output(g.value(halves).producer, 1);
  g.emit(bump_op, {g.leaf(w), second});
  g.mark_output(kept, "kept");
  CHECK(g.eliminate_dead() == 2);
  CHECK(op_names(g) == std::vector<std::string_view>{"twice", "split", "bump"});
  CHECK(g.eliminate_dead() == 0);
  verify(g, "elimination");
}

TEST_CASE("names: explicit, of the slot, of the scope and op, and of further outputs") {
  SlotTable slots;
  const SlotId w = slots.add({.name = "layer.weight", .shape = {3}});
  Graph g(slots);
  CHECK(g.name(g.leaf(w)) == "layer.weight");
  CHECK(g.leaf(w) == g.leaf(w));
  g.set_scope(g.add_scope("vit.layer.2", 2));
  const ValueId y = g.emit(split_op, {g.leaf(w)});
  const NodeId n = g.value(y).producer;
  CHECK(g.name(y) == "vit.layer.2/split");
  CHECK(g.name(g.output(n, 1)) == "vit.layer.2/split#1");
  CHECK(g.scope_of(n).block == 2);
  g.mark_output(y, "logits");
  CHECK(g.name(y) == "logits");
  g.clear_output(y);
  CHECK_FALSE(g.value(y).is_output);
}

TEST_CASE("slots added after the graph still have leaves") {
  SlotTable slots;
  Graph g(slots);
  const SlotId late = slots.add({.name = "late", .shape = {2}});
  CHECK(g.shape(g.leaf(late)) == Shape{2});
  CHECK_THROWS_AS(slots.add({.name = "late", .shape = {2}}), GraphError);
  CHECK(slots.find("late") == late);
  CHECK(slots.find("absent") == kNoSlot);
}

TEST_CASE("attributes come back as stored and refuse another op's type") {
  struct A {
    int x = 3;
  };
  struct B {
    int x = 5;
  };
  CHECK(Attrs().as<A>().x == 3);
  CHECK(Attrs(A{7}).as<A>().x == 7);
  CHECK_THROWS_AS(Attrs(A{7}).as<B>(), GraphError);
}

// Passes copy nodes with their attributes, which then lie in the array that grows.
TEST_CASE("a node can be emitted from another node's attributes and inputs") {
  struct Marked {
    int64_t value = 0;
  };
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {3});
  g.emit_node(copy_op, std::vector<ValueId>{x}, Marked{42});
  for (int i = 0; i < 5000; ++i) {
    g.emit_node(copy_op, std::vector<ValueId>{x}, g.node(g.last()).attrs);
  }
  CHECK(g.attr<Marked>(g.last()).value == 42);
}

TEST_CASE("expand replaces chosen nodes by their definition, outputs and readers included") {
  Chain c;
  const ValueId out = c.g.emit(twice_op, {c.b});
  c.g.mark_output(out, "out");
  c.g.mark_gradient(out);
  CHECK(expand(c.g, [](const Graph&, NodeId) { return false; }) == 0);
  CHECK(expand(c.g, is_twice) == 2);
  CHECK(op_names(c.g) == std::vector<std::string_view>{"sum", "copy", "sum"});
  verify(c.g, "expand");
  const ValueId now = c.g.output(c.g.last(), 0);
  CHECK(c.g.value(now).is_output);
  CHECK(c.g.value(now).is_gradient);
  CHECK(c.g.name(now) == "out");
  CHECK_FALSE(c.g.value(out).is_output);
  CHECK(expand(c.g, is_twice) == 0);
}
