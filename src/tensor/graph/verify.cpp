#include "tensor/graph/verify.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace lithe {
namespace {

std::string at(const Graph& g, NodeId n, std::string_view after) {
  return fmt::format("after {}, at {}", after, g.node_name(n));
}

void check_signature(const Graph& g, NodeId n, std::string_view after) {
  const Node& node = g.node(n);
  InferContext infer(g, *node.op, g.inputs(n), node.attrs);
  node.op->infer(infer);
  const auto specs = infer.outputs();
  if (static_cast<int>(specs.size()) != node.output_count) {
    throw GraphError(at(g, n, after), "has {} outputs, its op infers {}", node.output_count,
                     specs.size());
  }
  for (int i = 0; i < node.output_count; ++i) {
    const Value& v = g.value(g.output(n, i));
    const OutputSpec& spec = specs[static_cast<size_t>(i)];
    if (v.shape != spec.shape || v.dtype != spec.dtype) {
      throw GraphError(at(g, n, after), "output {} is {} {}, its op infers {} {}", i,
                       dtype_name(v.dtype), v.shape, dtype_name(spec.dtype), spec.shape);
    }
  }
}

// Whether a node reads something of the slot's shape that is no slot, as a gradient is.
bool brings_gradient(const Graph& g, NodeId n, const Slot& slot) {
  const auto inputs = g.inputs(n);
  return std::any_of(inputs.begin(), inputs.end(), [&](ValueId v) {
    return v != kNoValue && g.value(v).slot == kNoSlot && g.shape(v) == slot.shape;
  });
}

}  // namespace

void verify(const Graph& g, std::string_view after) {
  enum : uint8_t { kUndefined, kDefined, kOverwritten };
  std::vector<uint8_t> state(static_cast<size_t>(g.value_count()), kUndefined);
  // A view shows another value's memory, so it is overwritten with it.
  std::vector<ValueId> memory(static_cast<size_t>(g.value_count()));
  std::iota(memory.begin(), memory.end(), 0);
  std::set<std::string> names;
  for (ValueId v : g.leaves()) {
    state[static_cast<size_t>(v)] = kDefined;
    if (g.value(v).is_input && !names.insert(g.name(v)).second) {
      throw GraphError(fmt::format("after {}", after), "two inputs are named '{}'", g.name(v));
    }
  }
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    const Node& node = g.node(n);
    for (int i = 0; i < node.input_count; ++i) {
      const ValueId v = g.in(n, i);
      if (v == kNoValue) {
        continue;
      }
      if (v < 0 || v >= g.value_count()) {
        throw GraphError(at(g, n, after), "input {} is value {}, the graph has {}", i, v,
                         g.value_count());
      }
      if (state[static_cast<size_t>(v)] == kUndefined) {
        throw GraphError(at(g, n, after), "reads '{}' before it is defined", g.name(v));
      }
      if (state[static_cast<size_t>(v)] == kOverwritten ||
          state[static_cast<size_t>(memory[static_cast<size_t>(v)])] == kOverwritten) {
        throw GraphError(at(g, n, after), "reads '{}' after it was overwritten", g.name(v));
      }
    }
    check_signature(g, n, after);
    for (const AliasRule& rule : node.op->aliases) {
      if ((rule.kind != Alias::mutate && rule.kind != Alias::view) ||
          rule.input >= node.input_count || g.in(n, rule.input) == kNoValue) {
        continue;
      }
      const ValueId v = g.in(n, rule.input);
      if (rule.kind == Alias::view) {
        memory[static_cast<size_t>(g.output(n, rule.output))] = memory[static_cast<size_t>(v)];
        continue;
      }
      const Value& value = g.value(v);
      if (value.slot == kNoSlot) {
        throw GraphError(at(g, n, after), "overwrites '{}', which is no persistent slot",
                         g.name(v));
      }
      const Slot& slot = g.slots()[value.slot];
      // An update without a gradient is no training (AdamWAttrs::no_gradient).
      if (slot.kind == SlotKind::parameter && !slot.trainable && brings_gradient(g, n, slot)) {
        throw GraphError(at(g, n, after), "overwrites the frozen parameter '{}'", slot.name);
      }
      state[static_cast<size_t>(v)] = kOverwritten;
    }
    for (ValueId v : g.outputs(n)) {
      if (state[static_cast<size_t>(v)] != kUndefined) {
        throw GraphError(at(g, n, after), "defines '{}' a second time", g.name(v));
      }
      state[static_cast<size_t>(v)] = kDefined;
    }
  }
  for (ValueId v = 0; v < g.value_count(); ++v) {
    if (g.value(v).is_output && state[static_cast<size_t>(v)] == kUndefined) {
      throw GraphError(fmt::format("after {}", after), "the output '{}' is never computed",
                       g.name(v));
    }
  }
}

}  // namespace lithe
