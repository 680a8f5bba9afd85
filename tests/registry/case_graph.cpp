#include "registry/case_graph.h"

#include <algorithm>

#include "registry/fills.h"
#include "tensor/graph/gradient.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"

namespace lithe::registry {
namespace {

constexpr int64_t kGuard = kArenaAlignment;

// Gives every buffer its own place with guards around it.
Plan spread(Plan plan) {
  int64_t cursor = kGuard;
  for (Buffer& b : plan.buffers) {
    b.offset = cursor;
    cursor += b.bytes + kGuard;
  }
  for (Placement& place : plan.placement) {
    if (place.buffer >= 0) {
      place.offset = plan.buffers[static_cast<size_t>(place.buffer)].offset;
    }
  }
  plan.arena_bytes = cursor;
  return plan;
}

void expand_all(CaseGraph& built) {
  Graph& g = *built.graph;
  const auto always = [](const Graph&, NodeId) { return true; };
  while (expand(g, always) > 0) {
  }
  for (ValueId& v : built.outputs) {
    const NodeId producer = g.value(v).producer;
    if (producer == kNoNode || !g.node(producer).dead) {
      continue;
    }
    // expand() hands the name on to the value that took the output's place.
    const std::string name = g.name(v);
    for (ValueId other = 0; other < g.value_count(); ++other) {
      if (g.value(other).is_output && g.name(other) == name) {
        v = other;
      }
    }
  }
}

}  // namespace

CaseGraph build_case(const Case& c, const BuildOptions& options) {
  CaseGraph built;
  built.slots = std::make_unique<SlotTable>();
  std::vector<SlotId> slot_of(c.inputs.size(), kNoSlot);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    if (c.inputs[i].slot) {
      slot_of[i] = built.slots->add({.name = fmt::format("slot.{}", i),
                                     .dtype = input_dtype(c.inputs[i], options.dtype),
                                     .shape = c.inputs[i].shape,
                                     .kind = SlotKind::state});
    }
  }
  built.graph = std::make_unique<Graph>(*built.slots);
  Graph& g = *built.graph;
  std::vector<ValueId> operands;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const DType dtype = input_dtype(c.inputs[i], options.dtype);
    const std::string name = fmt::format("input.{}", i);
    const ValueId leaf =
        c.inputs[i].slot ? g.leaf(slot_of[i]) : g.input(name, dtype, c.inputs[i].shape);
    if (options.keep_inputs && !c.inputs[i].slot) {
      g.mark_output(leaf, name);
    }
    built.inputs.push_back(leaf);
    operands.push_back(options.chained && is_floating(dtype) && !c.inputs[i].slot
                           ? g.emit(scale_op, {leaf}, ScaleAttrs{1.0})
                           : leaf);
  }
  built.outputs = c.build(g, operands);
  for (size_t i = 0; i < built.outputs.size(); ++i) {
    g.mark_output(built.outputs[i], fmt::format("output.{}", i));
  }
  verify(g, "build");
  if (options.expanded) {
    expand_all(built);
    verify(g, "expand");
  }

  built.gradients.assign(c.inputs.size(), kNoValue);
  std::vector<ValueId> wanted;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    if (is_differentiable(c.inputs[i]) &&
        (options.only < 0 || options.only == static_cast<int>(i))) {
      wanted.push_back(built.inputs[i]);
    }
  }
  if (options.gradients && c.op->grad != nullptr && !wanted.empty() && !built.outputs.empty() &&
      is_floating(g.dtype(built.outputs[0]))) {
    const ValueId y = built.outputs[0];
    built.cotangent = g.input("cotangent", g.dtype(y), g.shape(y));
    if (options.keep_inputs) {
      g.mark_output(built.cotangent, "cotangent");
    }
    ValueId seed = built.cotangent;
    if (options.chained) {
      g.set_phase(Phase::backward);
      seed = g.emit(scale_op, {seed}, ScaleAttrs{1.0});
      g.set_phase(Phase::forward);
    }
    for (const ParameterGradient& p : build_gradients(g, y, seed, wanted, add_op)) {
      const auto at = std::find(built.inputs.begin(), built.inputs.end(), p.parameter);
      const auto i = static_cast<size_t>(at - built.inputs.begin());
      built.gradients[i] = p.gradient;
      g.mark_output(p.gradient, fmt::format("gradient.{}", i));
    }
    if (c.rewrite) {
      c.rewrite(g);
    }
    verify(g, "gradients");
  }
  return built;
}

Tensor make_cotangent(const CaseGraph& built, uint64_t seed) {
  if (built.cotangent == kNoValue) {
    return {};
  }
  const Graph& g = *built.graph;
  return make_normal(g.dtype(built.cotangent), g.shape(built.cotangent), seed, 99);
}

Session::Session(const CaseGraph& built, std::shared_ptr<DeviceMemory> memory, KernelLookup lookup,
                 bool guarded)
    : built_(built),
      plan_(guarded ? spread(make_plan(*built.graph, memory->kind()))
                    : make_plan(*built.graph, memory->kind())),
      executor_(memory, lookup, *built.slots),
      program_(executor_.bind(*built.graph, plan_)) {}

void Session::write_input(size_t i, const Tensor& value) {
  const ValueId leaf = built_.inputs[i];
  const SlotId slot = built_.graph->value(leaf).slot;
  if (slot != kNoSlot) {
    executor_.write_slot(slot, value);
  } else {
    executor_.write(program_, leaf, value);
  }
}

void Session::write(const std::vector<Tensor>& inputs, const Tensor& cotangent) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    write_input(i, inputs[i]);
  }
  if (built_.cotangent != kNoValue) {
    executor_.write(program_, built_.cotangent, cotangent);
  }
}

void Session::run_rounded(const Graph& like) {
  const Graph& g = *built_.graph;
  const std::vector<NodeId> other = like.order();
  for (int position = 0; position < static_cast<int>(plan_.order.size()); ++position) {
    executor_.run(program_, position, position + 1);
    const NodeId n = plan_.order[static_cast<size_t>(position)];
    const NodeId m = other[static_cast<size_t>(position)];
    for (int i = 0; i < g.node(n).output_count; ++i) {
      const DType from = g.dtype(g.output(n, i));
      const DType to = like.dtype(like.output(m, i));
      if (!is_floating(from) || from == to) {
        continue;
      }
      const TensorRef ref = executor_.ref(program_, g.output(n, i));
      Tensor exact(from, ref.shape);
      executor_.memory().copy_out(exact.data(), ref.data, exact.bytes());
      const Tensor rounded = exact.to(to).to(from);
      executor_.memory().copy_in(ref.data, rounded.data(), rounded.bytes());
    }
  }
}

int64_t Session::bytes_written_outside() const {
  const Graph& g = *built_.graph;
  // Any value in the arena tells where it begins.
  const auto in_arena = [](const Placement& p) { return p.block == Placement::Block::arena; };
  const auto at = std::find_if(plan_.placement.begin(), plan_.placement.end(), in_arena);
  if (at == plan_.placement.end()) {
    return 0;
  }
  const auto v = static_cast<ValueId>(at - plan_.placement.begin());
  const auto* base = static_cast<const std::byte*>(executor_.ref(program_, v).data) - at->offset;
  std::vector<uint8_t> arena(static_cast<size_t>(executor_.arena_bytes()));
  executor_.memory().copy_out(arena.data(), base, executor_.arena_bytes());
  // What belongs to a buffer is as a kernel may use it: a value's own bytes, without the rounding
  // up to the alignment; a workspace whole.
  for (const Buffer& b : plan_.buffers) {
    const int64_t used = b.value == kNoValue ? b.bytes : g.bytes(b.value);
    std::fill_n(arena.begin() + b.offset, used, kPoison);
  }
  return std::count_if(arena.begin(), arena.end(), [](uint8_t byte) { return byte != kPoison; });
}

std::vector<Result> Session::results() const {
  std::vector<Result> out;
  for (size_t i = 0; i < built_.outputs.size(); ++i) {
    // A value in a slot is compared as the slot.
    const Placement& place = plan_.placement[static_cast<size_t>(built_.outputs[i])];
    if (place.block == Placement::Block::arena) {
      out.push_back({fmt::format("output {}", i), read(built_.outputs[i])});
    }
  }
  for (size_t i = 0; i < built_.gradients.size(); ++i) {
    if (built_.gradients[i] != kNoValue) {
      out.push_back({fmt::format("gradient of input {}", i), read(built_.gradients[i])});
    }
  }
  for (size_t i = 0; i < built_.inputs.size(); ++i) {
    if (const SlotId slot = built_.graph->value(built_.inputs[i]).slot; slot != kNoSlot) {
      out.push_back({fmt::format("slot {}", i), executor_.read_slot(slot)});
    }
  }
  return out;
}

}  // namespace lithe::registry
