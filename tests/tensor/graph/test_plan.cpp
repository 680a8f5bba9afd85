#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "random_graph.h"
#include "tensor/core/philox.h"
#include "tensor/graph/plan.h"
#include "tensor/graph/verify.h"

using namespace lithe;
using namespace lithe::test;

namespace {

bool overlap(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes) {
  return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

// Lifetimes found anew from the graph: of a value together with its views, both ends included.
struct Life {
  int first = -1;
  int last = -1;
};

class Lives {
 public:
  explicit Lives(const Graph& g) : g_(g), order_(g.order()) {
    for (ValueId v = 0; v < g.value_count(); ++v) {
      owner_.push_back(v);
    }
    life_.resize(owner_.size());
    for (int p = 0; p < static_cast<int>(order_.size()); ++p) {
      const NodeId n = order_[static_cast<size_t>(p)];
      for (ValueId v : g.outputs(n)) {
        const AliasRule rule = g.node(n).op->aliases[0];
        const bool shares = rule.kind == Alias::view || rule.kind == Alias::mutate;
        if (shares) {
          owner_[static_cast<size_t>(v)] = owner(g.in(n, 0));
        } else {
          life_[static_cast<size_t>(v)] = {p, p};
        }
      }
      for (ValueId v : g.inputs(n)) {
        life_[static_cast<size_t>(owner(v))].last = p;
      }
      for (ValueId v : g.outputs(n)) {
        Life& life = life_[static_cast<size_t>(owner(v))];
        life.last = std::max(life.last, p);
      }
    }
    for (ValueId v = 0; v < g.value_count(); ++v) {
      if (g.value(v).is_output) {
        life_[static_cast<size_t>(owner(v))].last = static_cast<int>(order_.size());
      }
    }
  }

  ValueId owner(ValueId v) const { return owner_[static_cast<size_t>(v)]; }
  Life life(ValueId v) const { return life_[static_cast<size_t>(v)]; }
  // Whether b may lie where a lies because the node that makes b is a's last reader.
  bool handed_over(ValueId a, ValueId b) const {
    const NodeId n = g_.value(b).producer;
    if (n == kNoNode || life(a).last != life(b).first) {
      return false;
    }
    for (const AliasRule& rule : g_.node(n).op->aliases) {
      if (rule.kind == Alias::in_place && rule.input < g_.node(n).input_count &&
          rule.output == g_.value(b).output_index && owner(g_.in(n, rule.input)) == a) {
        return true;
      }
    }
    return false;
  }

 private:
  const Graph& g_;
  std::vector<NodeId> order_;
  std::vector<ValueId> owner_;
  std::vector<Life> life_;
};

// Pairs of values that live at the same time in the same bytes without being allowed to.
int count_clashes(const Graph& g, const Plan& plan) {
  const Lives lives(g);
  int clashes = 0;
  for (ValueId a = 0; a < g.value_count(); ++a) {
    for (ValueId b = 0; b < g.value_count(); ++b) {
      const Placement& pa = plan.placement[static_cast<size_t>(a)];
      const Placement& pb = plan.placement[static_cast<size_t>(b)];
      if (a == b || lives.owner(a) != a || lives.owner(b) != b ||
          pa.block != Placement::Block::arena || pb.block != Placement::Block::arena) {
        continue;
      }
      const Life x = lives.life(a);
      const Life y = lives.life(b);
      const bool together = x.first <= y.last && y.first <= x.last;
      if (together && overlap(pa.offset, g.bytes(a), pb.offset, g.bytes(b)) &&
          !lives.handed_over(a, b) && !lives.handed_over(b, a)) {
        ++clashes;
      }
    }
  }
  return clashes;
}

// A workspace lies beside everything that lives at its node.
int count_scratch_clashes(const Plan& plan) {
  int clashes = 0;
  for (const Buffer& a : plan.buffers) {
    for (const Buffer& b : plan.buffers) {
      const bool together = a.first <= b.last && b.first <= a.last;
      clashes += &a < &b && together && overlap(a.offset, a.bytes, b.offset, b.bytes) ? 1 : 0;
    }
  }
  return clashes;
}

}  // namespace

TEST_CASE("300 random graphs: no clash, views share, bounds hold, the same plan twice") {
  int shared_in_place = 0;
  int reused = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const RandomGraph random(seed);
    const Graph& g = random.graph;
    verify(g, "random");
    const Plan plan = make_plan(g, DeviceKind::cpu);
    REQUIRE(count_clashes(g, plan) == 0);
    REQUIRE(count_scratch_clashes(plan) == 0);
    REQUIRE(plan.arena_bytes <= plan.naive_bytes);
    REQUIRE(plan.arena_bytes >= plan.live_peak_bytes);
    REQUIRE(std::accumulate(plan.peak_by_class.begin(), plan.peak_by_class.end(), int64_t{0}) ==
            plan.arena_bytes);
    for (const Buffer& b : plan.buffers) {
      REQUIRE(b.offset % kArenaAlignment == 0);
      REQUIRE(b.offset + b.bytes <= plan.arena_bytes);
    }
    for (NodeId n : g.order()) {
      const Placement& in = plan.placement[static_cast<size_t>(g.in(n, 0))];
      const Placement& out = plan.placement[static_cast<size_t>(g.output(n, 0))];
      if (g.node(n).op == &flat_op) {
        REQUIRE(in.block == out.block);
        REQUIRE(in.offset == out.offset);
      }
      if (g.node(n).op == &twice_op && in.buffer >= 0 && in.buffer == out.buffer) {
        ++shared_in_place;
      }
    }
    reused += plan.arena_bytes < plan.naive_bytes ? 1 : 0;

    const Plan again = make_plan(g, DeviceKind::cpu);
    REQUIRE(again.arena_bytes == plan.arena_bytes);
    for (size_t v = 0; v < plan.placement.size(); ++v) {
      REQUIRE(again.placement[v].offset == plan.placement[v].offset);
      REQUIRE(again.placement[v].buffer == plan.placement[v].buffer);
    }
  }
  // The graphs do exercise what the test is about.
  CHECK(shared_in_place > 300);
  CHECK(reused > 200);
}

TEST_CASE("a wrong plan is a clash: the check above can fail") {
  const RandomGraph random(7);
  Plan plan = make_plan(random.graph, DeviceKind::cpu);
  for (Placement& place : plan.placement) {
    place.offset = 0;
  }
  CHECK(count_clashes(random.graph, plan) > 0);
}

TEST_CASE("place_buffers on random intervals: no overlap, between the peak and the sum") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::vector<Buffer> buffers(1 + philox(seed, 0, 0).word[0] % 80);
    std::vector<int64_t> live(64, 0);
    int64_t sum = 0;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const PhiloxBlock r = philox(seed, 1, i);
      Buffer& b = buffers[i];
      b.bytes = static_cast<int64_t>(r.word[0] % 9) * kArenaAlignment;
      b.first = static_cast<int>(r.word[1] % 60) - 1;
      b.last = std::min(b.first + 1 + static_cast<int>(r.word[2] % 20), 60);
      sum += b.bytes;
      for (int p = std::max(b.first, 0); p <= b.last; ++p) {
        live[static_cast<size_t>(p)] += b.bytes;
      }
    }
    const int64_t peak = *std::max_element(live.begin(), live.end());
    Plan plan;
    plan.buffers = buffers;
    const int64_t total = place_buffers(plan.buffers, peak);
    CHECK(total >= peak);
    CHECK(total <= sum);
    int64_t end = 0;
    for (const Buffer& b : plan.buffers) {
      CHECK(b.offset >= 0);
      CHECK(b.offset % kArenaAlignment == 0);
      end = std::max(end, b.offset + b.bytes);
    }
    CHECK(end == total);
    CHECK(count_scratch_clashes(plan) == 0);
  }
  std::vector<Buffer> none;
  CHECK(place_buffers(none, 0) == 0);
}

TEST_CASE("a chain needs two buffers, in place one") {
  SlotTable slots;
  Graph copies(slots);
  Graph in_place(slots);
  ValueId a = copies.emit(copy_op, {copies.input("x", DType::f32, {64})});
  ValueId b = in_place.emit(copy_op, {in_place.input("x", DType::f32, {64})});
  for (int i = 0; i < 10; ++i) {
    a = copies.emit(copy_op, {a});
    b = in_place.emit(twice_op, {b});
  }
  copies.mark_output(a, "y");
  in_place.mark_output(b, "y");
  CHECK(make_plan(copies, DeviceKind::cpu).arena_bytes == 2 * 256);
  // The input stays beside the copy only until the first node is done.
  CHECK(make_plan(in_place, DeviceKind::cpu).buffers.size() == 2);
  CHECK(make_plan(in_place, DeviceKind::cpu).arena_bytes == 2 * 256);
}

TEST_CASE("in-place sharing is refused where the input is read again, is an input, or twice") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {64});
  const ValueId of_input = g.emit(twice_op, {x});
  const ValueId kept = g.emit(copy_op, {of_input});
  const ValueId early = g.emit(twice_op, {kept});
  const ValueId late = g.emit(sum_op, {kept, early});
  const ValueId squared = g.emit(sum_op, {late, late});
  g.mark_output(squared, "y");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  const auto buffer = [&](ValueId v) { return plan.placement[static_cast<size_t>(v)].buffer; };
  CHECK(buffer(of_input) != buffer(x));
  CHECK(buffer(early) != buffer(kept));
  CHECK(buffer(late) == buffer(kept));
  CHECK(buffer(squared) != buffer(late));
}

TEST_CASE("two outputs never take the same input's place, even when one is read by nobody") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.emit(copy_op, {g.input("x", DType::f32, {64})});
  const ValueId up = g.emit(split_op, {x});
  const ValueId down = g.output(g.value(up).producer, 1);
  g.mark_output(down, "down");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  CHECK(plan.placement[static_cast<size_t>(up)].offset !=
        plan.placement[static_cast<size_t>(down)].offset);
}

TEST_CASE("what backward reads of the forward pass is a saved activation, the rest is not") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {64});
  const ValueId saved = g.emit(copy_op, {x});
  const ValueId passing = g.emit(copy_op, {saved});
  const ValueId loss = g.emit(copy_op, {passing});
  g.mark_output(loss, "loss");
  g.set_phase(Phase::backward);
  const ValueId grad = g.emit(copy_op, {g.emit(flat_op, {saved})});
  g.mark_gradient(grad);
  g.mark_output(grad, "grad");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  const auto cls = [&](ValueId v) {
    return plan.buffers[static_cast<size_t>(plan.placement[static_cast<size_t>(v)].buffer)].cls;
  };
  CHECK(cls(saved) == MemoryClass::saved_activations);
  CHECK(cls(passing) == MemoryClass::temporaries);
  CHECK(cls(grad) == MemoryClass::gradients);
}

TEST_CASE("the timeline's largest sum is the live peak") {
  const RandomGraph random(11);
  const Plan plan = make_plan(random.graph, DeviceKind::cpu);
  int64_t peak = 0;
  for (const MemoryByClass& at : plan.timeline()) {
    peak = std::max(peak, std::accumulate(at.begin(), at.end(), int64_t{0}));
  }
  CHECK(peak == plan.live_peak_bytes);
  CHECK(plan.timeline().size() == plan.order.size() + 1);
}

TEST_CASE("slot bytes are counted by class, each slot aligned") {
  SlotTable slots;
  slots.add({.name = "w", .shape = {65}});
  slots.add({.name = "m", .shape = {65}, .cls = MemoryClass::optimizer});
  slots.add({.name = "v", .dtype = DType::bf16, .shape = {1}, .cls = MemoryClass::optimizer});
  const MemoryByClass bytes = slot_bytes(slots);
  CHECK(bytes[static_cast<size_t>(MemoryClass::weights)] == 512);
  CHECK(bytes[static_cast<size_t>(MemoryClass::optimizer)] == 768);
}

TEST_CASE("frozen parameters with a copy lie on the host and are not counted") {
  SlotTable slots;
  slots.add({.name = "frozen", .shape = {65}});
  slots.add({.name = "trained", .shape = {65}, .trainable = true});
  slots.add({.name = "table", .shape = {65}, .lookup = true});
  slots.add_copies(DType::bf16);
  slots.keep_frozen_on_host();
  const MemoryByClass bytes = slot_bytes(slots);
  CHECK(bytes[static_cast<size_t>(MemoryClass::weights)] == 2 * 512 + 2 * 256);
}
