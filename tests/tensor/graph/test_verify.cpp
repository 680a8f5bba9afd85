#include <doctest/doctest.h>

#include <string>

#include "sample_ops.h"
#include "tensor/graph/verify.h"

using namespace lithe;
using namespace lithe::test;

namespace {

std::string refusal(const Graph& g) {
  try {
    verify(g, "the test's pass");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

struct Slots {
  SlotTable table;
  SlotId trainable = table.add({.name = "trained", .shape = {4}, .trainable = true});
  SlotId frozen = table.add({.name = "frozen", .shape = {4}});
  SlotId state = table.add({.name = "moment", .shape = {4}, .kind = SlotKind::state});
};

}  // namespace

TEST_CASE("a well-formed graph passes, with slots of each overwritable kind") {
  const Slots s;
  Graph g(s.table);
  const ValueId x = g.input("x", DType::f32, {4});
  const ValueId y = g.emit(sum_op, {x, g.leaf(s.frozen)});
  const ValueId w = g.emit(bump_op, {g.leaf(s.trainable), y});
  g.emit(bump_op, {g.leaf(s.state), w});
  g.mark_output(y, "y");
  CHECK(refusal(g) == "");
}

TEST_CASE("a value read before it is defined is refused, with pass, node and value named") {
  const Slots s;
  Graph g(s.table);
  const ValueId x = g.input("x", DType::f32, {4});
  const ValueId a = g.emit(twice_op, {x});
  const ValueId b = g.emit(copy_op, {a});
  g.set_name(b, "the later one");
  g.replace_input(g.value(a).producer, 0, b);
  const std::string text = refusal(g);
  CHECK(contains(text, "the test's pass"));
  CHECK(contains(text, "twice"));
  CHECK(contains(text, "'the later one' before it is defined"));
}

TEST_CASE("a reader of an erased node's output is refused") {
  const Slots s;
  Graph g(s.table);
  const ValueId a = g.emit(twice_op, {g.input("x", DType::f32, {4})});
  g.emit(copy_op, {a});
  g.erase(g.value(a).producer);
  CHECK(contains(refusal(g), "before it is defined"));
}

TEST_CASE("an operand number outside the graph is refused") {
  const Slots s;
  Graph g(s.table);
  const ValueId a = g.emit(twice_op, {g.input("x", DType::f32, {4})});
  g.replace_input(g.value(a).producer, 0, 9999);
  CHECK(contains(refusal(g), "9999"));
  g.replace_input(g.value(a).producer, 0, -2);
  CHECK(contains(refusal(g), "-2"));
}

TEST_CASE("an overwritten slot is not read any more") {
  const Slots s;
  Graph g(s.table);
  const ValueId x = g.input("x", DType::f32, {4});
  const ValueId w = g.leaf(s.trainable);
  SUBCASE("itself") {
    g.emit(bump_op, {w, x});
    g.emit(copy_op, {w});
    CHECK(contains(refusal(g), "'trained' after it was overwritten"));
  }
  SUBCASE("through a view made earlier") {
    const ValueId view = g.emit(flat_op, {w});
    g.emit(bump_op, {w, x});
    g.emit(copy_op, {view});
    CHECK(contains(refusal(g), "after it was overwritten"));
  }
  SUBCASE("a second overwriting") {
    g.emit(bump_op, {w, x});
    g.emit(bump_op, {w, x});
    CHECK(contains(refusal(g), "after it was overwritten"));
  }
  SUBCASE("but the new value is, and so is a view read in time") {
    g.emit(copy_op, {g.emit(flat_op, {w})});
    const ValueId now = g.emit(bump_op, {w, x});
    g.emit(copy_op, {now});
    CHECK(refusal(g) == "");
  }
}

TEST_CASE("a frozen parameter is not overwritten, nor what is no slot") {
  const Slots s;
  Graph g(s.table);
  const ValueId x = g.input("x", DType::f32, {4});
  SUBCASE("frozen") {
    g.emit(bump_op, {g.leaf(s.frozen), x});
    CHECK(contains(refusal(g), "the frozen parameter 'frozen'"));
  }
  SUBCASE("an input") {
    g.emit(bump_op, {x, g.leaf(s.frozen)});
    CHECK(contains(refusal(g), "'x', which is no persistent slot"));
  }
  SUBCASE("a computed value") {
    g.emit(bump_op, {g.emit(twice_op, {x}), x});
    CHECK(contains(refusal(g), "which is no persistent slot"));
  }
}

TEST_CASE("a recorded shape or dtype that the op does not infer is refused with both") {
  const Slots s;
  Graph g(s.table);
  const ValueId x = g.input("x", DType::f32, {4});
  const ValueId longer = g.input("longer", DType::f32, {5});
  const ValueId wide = g.input("wide", DType::f64, {4});
  const ValueId y = g.emit(twice_op, {x});
  g.replace_input(g.value(y).producer, 0, longer);
  const std::string text = refusal(g);
  CHECK(contains(text, "[4]"));
  CHECK(contains(text, "[5]"));
  g.replace_input(g.value(y).producer, 0, wide);
  CHECK(contains(refusal(g), "fp64"));
}

TEST_CASE("operands that the op's own rule refuses are refused") {
  const Slots s;
  Graph g(s.table);
  const ValueId x = g.input("x", DType::f32, {4});
  const ValueId longer = g.input("longer", DType::f32, {5});
  const ValueId y = g.emit(sum_op, {x, x});
  g.replace_input(g.value(y).producer, 1, longer);
  CHECK_THROWS_AS(verify(g, "t"), ShapeError);
}

TEST_CASE("an output that no node computes is refused") {
  const Slots s;
  Graph g(s.table);
  const ValueId y = g.emit(twice_op, {g.input("x", DType::f32, {4})});
  g.mark_output(y, "logits");
  g.erase(g.value(y).producer);
  CHECK(contains(refusal(g), "'logits' is never computed"));
}

TEST_CASE("two inputs of one name are refused") {
  const Slots s;
  Graph g(s.table);
  g.input("labels", DType::i64, {4});
  g.input("labels", DType::f32, {4});
  CHECK(contains(refusal(g), "two inputs are named 'labels'"));
}
