#include "tensor/graph/graph.h"

#include <algorithm>

namespace lithe {

void Attrs::throw_wrong_type() {
  throw GraphError("graph", "attributes of another op's type were asked for");
}

Graph::Graph(const SlotTable& slots) : slots_(&slots) {
  // A training step of ViT-B/16 has about 1,500 nodes: reserving once keeps building cheap.
  values_.reserve(4096);
  nodes_.reserve(2048);
  operands_.reserve(16384);
  scopes_.reserve(512);
  scopes_.push_back({});
  leaf_of_slot_.assign(static_cast<size_t>(slots.size()), kNoValue);
}

ValueId Graph::input(std::string_view name, DType dtype, const Shape& shape) {
  Value v;
  v.shape = shape;
  v.dtype = dtype;
  v.is_input = true;
  values_.push_back(v);
  const auto id = static_cast<ValueId>(values_.size() - 1);
  set_name(id, name);
  leaves_.push_back(id);
  return id;
}

ValueId Graph::leaf(SlotId slot) {
  if (static_cast<size_t>(slot) >= leaf_of_slot_.size()) {
    leaf_of_slot_.resize(static_cast<size_t>(slots_->size()), kNoValue);
  }
  ValueId& known = leaf_of_slot_[static_cast<size_t>(slot)];
  if (known == kNoValue) {
    const Slot& s = (*slots_)[slot];
    Value v;
    v.shape = s.shape;
    v.dtype = s.dtype;
    v.slot = slot;
    values_.push_back(v);
    known = static_cast<ValueId>(values_.size() - 1);
    leaves_.push_back(known);
  }
  return known;
}

NodeId Graph::emit_node(const OpDef& op, std::span<const ValueId> inputs, const Attrs& attrs) {
  InferContext infer(*this, op, inputs, attrs);
  op.infer(infer);

  const auto id = static_cast<NodeId>(nodes_.size());
  Node n;
  n.op = &op;
  n.attrs = attrs;  // may lie in nodes_: copied before that grows
  n.phase = phase_;
  n.scope = scope_;
  n.first_operand = static_cast<int32_t>(operands_.size());
  n.input_count = static_cast<int16_t>(inputs.size());
  n.output_count = static_cast<int16_t>(infer.outputs().size());
  operands_.insert(operands_.end(), inputs.begin(), inputs.end());
  int16_t index = 0;
  for (const OutputSpec& spec : infer.outputs()) {
    Value& v = values_.emplace_back();
    v.shape = spec.shape;
    v.dtype = spec.dtype;
    v.producer = id;
    v.output_index = index++;
    operands_.push_back(static_cast<ValueId>(values_.size() - 1));
  }

  n.next = cursor_;
  n.previous = cursor_ == kNoNode ? tail_ : node(cursor_).previous;
  nodes_.push_back(n);
  (n.previous == kNoNode ? head_ : nodes_[static_cast<size_t>(n.previous)].next) = id;
  (n.next == kNoNode ? tail_ : nodes_[static_cast<size_t>(n.next)].previous) = id;
  return id;
}

std::span<const ValueId> Graph::inputs(NodeId n) const {
  const Node& nd = node(n);
  return {operands_.data() + nd.first_operand, static_cast<size_t>(nd.input_count)};
}

std::span<const ValueId> Graph::outputs(NodeId n) const {
  const Node& nd = node(n);
  return {operands_.data() + nd.first_operand + nd.input_count,
          static_cast<size_t>(nd.output_count)};
}

std::vector<NodeId> Graph::order() const {
  std::vector<NodeId> out;
  out.reserve(nodes_.size());
  for (NodeId n = head_; n != kNoNode; n = next(n)) {
    out.push_back(n);
  }
  return out;
}

std::string Graph::name(ValueId v) const {
  const Value& val = value(v);
  if (val.name >= 0) {
    return names_[static_cast<size_t>(val.name)];
  }
  if (val.slot != kNoSlot) {
    return (*slots_)[val.slot].name;
  }
  std::string out = node_name(val.producer);
  return val.output_index == 0 ? out : fmt::format("{}#{}", out, val.output_index);
}

std::string Graph::node_name(NodeId n) const {
  const Node& nd = node(n);
  const std::string& path = scope(nd.scope).path;
  return path.empty() ? std::string(nd.op->name) : fmt::format("{}/{}", path, nd.op->name);
}

void Graph::set_name(ValueId v, std::string_view name) {
  names_.emplace_back(name);
  values_[static_cast<size_t>(v)].name = static_cast<int32_t>(names_.size() - 1);
}

void Graph::mark_output(ValueId v, std::string_view name) {
  values_[static_cast<size_t>(v)].is_output = true;
  set_name(v, name);
}

void Graph::replace_input(NodeId n, int i, ValueId with) {
  operands_[static_cast<size_t>(node(n).first_operand + i)] = with;
}

void Graph::replace_uses(const std::vector<ValueId>& to) {
  for (NodeId n = head_; n != kNoNode; n = next(n)) {
    const Node& nd = node(n);
    for (int i = 0; i < nd.input_count; ++i) {
      ValueId& v = operands_[static_cast<size_t>(nd.first_operand + i)];
      // A rewrite may rewrite what an earlier one produced: follow the chain.
      while (v != kNoValue && static_cast<size_t>(v) < to.size() &&
             to[static_cast<size_t>(v)] != kNoValue) {
        v = to[static_cast<size_t>(v)];
      }
    }
  }
}

void Graph::erase(NodeId n) {
  Node& nd = nodes_[static_cast<size_t>(n)];
  if (nd.dead) {
    return;
  }
  (nd.previous == kNoNode ? head_ : nodes_[static_cast<size_t>(nd.previous)].next) = nd.next;
  (nd.next == kNoNode ? tail_ : nodes_[static_cast<size_t>(nd.next)].previous) = nd.previous;
  if (cursor_ == n) {
    cursor_ = nd.next;
  }
  nd.dead = true;
}

int Graph::eliminate_dead() {
  std::vector<bool> needed(values_.size(), false);
  for (size_t v = 0; v < values_.size(); ++v) {
    needed[v] = values_[v].is_output;
  }
  int removed = 0;
  for (NodeId n = tail_; n != kNoNode;) {
    const NodeId before = node(n).previous;
    const auto outs = outputs(n);
    const bool used = std::any_of(outs.begin(), outs.end(),
                                  [&](ValueId v) { return needed[static_cast<size_t>(v)]; });
    if (used || node(n).op->has_effect) {
      for (ValueId v : inputs(n)) {
        if (v != kNoValue) {
          needed[static_cast<size_t>(v)] = true;
        }
      }
    } else {
      erase(n);
      ++removed;
    }
    n = before;
  }
  return removed;
}

ScopeId Graph::add_scope(std::string_view path, int block) {
  scopes_.push_back({std::string(path), block});
  return static_cast<ScopeId>(scopes_.size() - 1);
}

void InferContext::expect_inputs(int least, int most) const {
  most = most < 0 ? least : most;
  if (input_count() < least || input_count() > most) {
    fail("{} inputs given, {} to {} wanted", input_count(), least, most);
  }
  for (int i = 0; i < least; ++i) {
    if (!has(i)) {
      fail("input {} is missing", i);
    }
  }
}

void InferContext::expect_floating(int i) const {
  if (!is_floating(dtype(i))) {
    fail("input {} is {} {}; a floating type is wanted, cast it first", i, dtype_name(dtype(i)),
         shape(i));
  }
}

void InferContext::expect_same_dtype(int a, int b) const {
  if (dtype(a) != dtype(b)) {
    fail("inputs {} and {} are {} and {}; cast one of them", a, b, dtype_name(dtype(a)),
         dtype_name(dtype(b)));
  }
}

void InferContext::expect_shape(int i, const Shape& wanted, std::string_view what) const {
  if (shape(i) != wanted) {
    fail("{} has shape {}, {} wanted", what, shape(i), wanted);
  }
}

}  // namespace lithe
