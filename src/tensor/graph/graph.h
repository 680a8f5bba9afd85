// The step graph: one forward (and backward, and update) at one shape, as typed values without
// data. Building, rewriting and planning need neither a device nor weights.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/graph/op.h"
#include "tensor/graph/slots.h"

namespace lithe {

enum class Phase : uint8_t { forward, backward, update };

using ScopeId = int32_t;

// Where a node comes from: a module's dotted path, and the repeated block it lies in (-1: none).
struct Scope {
  std::string path;
  int block = -1;
};

struct Value {
  Shape shape;
  DType dtype = DType::f32;
  NodeId producer = kNoNode;  // kNoNode: a leaf
  int16_t output_index = 0;
  bool is_input = false;     // written before the step (a batch)
  bool is_output = false;    // read after the step, so it lives to the end
  bool is_gradient = false;  // the complete gradient of a parameter
  SlotId slot = kNoSlot;     // leaf of a persistent tensor
  int32_t name = -1;         // index of an explicit name
};

struct Node {
  const OpDef* op = nullptr;
  Attrs attrs;
  Phase phase = Phase::forward;
  ScopeId scope = 0;
  int32_t first_operand = 0;  // in the graph's operand pool: inputs, then outputs
  int16_t input_count = 0;
  int16_t output_count = 0;
  NodeId previous = kNoNode;
  NodeId next = kNoNode;
  bool dead = false;
};

class Graph {
 public:
  explicit Graph(const SlotTable& slots);

  // ---- leaves
  ValueId input(std::string_view name, DType dtype, const Shape& shape);
  ValueId leaf(SlotId slot);  // the same value for every call with the same slot

  // ---- nodes; inserted at the cursor (by default: at the end)
  // Absent optional inputs are kNoValue.
  NodeId emit_node(const OpDef& op, std::span<const ValueId> inputs, const Attrs& attrs = {});
  // The first output of a new node.
  ValueId emit(const OpDef& op, std::initializer_list<ValueId> inputs, const Attrs& attrs = {}) {
    return output(emit_node(op, std::span(inputs.begin(), inputs.size()), attrs), 0);
  }

  // ---- how its kernels compute
  const Numerics& numerics() const { return numerics_; }
  void set_numerics(const Numerics& numerics) { numerics_ = numerics; }

  // ---- reading
  const SlotTable& slots() const { return *slots_; }
  const Value& value(ValueId v) const { return values_[static_cast<size_t>(v)]; }
  const Node& node(NodeId n) const { return nodes_[static_cast<size_t>(n)]; }
  const Shape& shape(ValueId v) const { return value(v).shape; }
  DType dtype(ValueId v) const { return value(v).dtype; }
  int64_t bytes(ValueId v) const { return byte_size(value(v).dtype, value(v).shape); }
  std::span<const ValueId> inputs(NodeId n) const;
  std::span<const ValueId> outputs(NodeId n) const;
  ValueId in(NodeId n, int i) const { return inputs(n)[static_cast<size_t>(i)]; }
  ValueId output(NodeId n, int i) const { return outputs(n)[static_cast<size_t>(i)]; }
  template <typename T>
  T attr(NodeId n) const {
    return node(n).attrs.as<T>();
  }
  int value_count() const { return static_cast<int>(values_.size()); }
  int node_count() const { return static_cast<int>(nodes_.size()); }
  NodeId first() const { return head_; }
  NodeId last() const { return tail_; }
  NodeId next(NodeId n) const { return node(n).next; }
  std::vector<NodeId> order() const;  // the live nodes, in order
  const std::vector<ValueId>& leaves() const { return leaves_; }

  // "vit.encoder.layer.3.attention/softmax": for reports and errors; outputs after the first get
  // "#i".
  std::string name(ValueId v) const;
  std::string node_name(NodeId n) const;
  const Scope& scope(ScopeId s) const { return scopes_[static_cast<size_t>(s)]; }
  const Scope& scope_of(NodeId n) const { return scope(node(n).scope); }

  // ---- marking
  void mark_output(ValueId v, std::string_view name);
  void clear_output(ValueId v) { values_[static_cast<size_t>(v)].is_output = false; }
  void mark_gradient(ValueId v) { values_[static_cast<size_t>(v)].is_gradient = true; }
  void set_name(ValueId v, std::string_view name);

  // ---- rewriting
  void replace_input(NodeId n, int i, ValueId with);
  // Every reader of `from` reads `to[from]` instead, where that is not kNoValue. One sweep.
  void replace_uses(const std::vector<ValueId>& to);
  void erase(NodeId n);
  // New nodes go before `n` (kNoNode: at the end) until the cursor is set again.
  void set_cursor(NodeId n) { cursor_ = n; }
  NodeId cursor() const { return cursor_; }
  // Removes nodes that nobody reads and that have no effect; returns how many.
  int eliminate_dead();

  // ---- context of new nodes
  Phase phase() const { return phase_; }
  void set_phase(Phase p) { phase_ = p; }
  ScopeId current_scope() const { return scope_; }
  void set_scope(ScopeId s) { scope_ = s; }
  ScopeId add_scope(std::string_view path, int block = -1);

 private:
  const SlotTable* slots_;
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<ValueId> operands_;
  std::vector<Scope> scopes_;
  std::vector<std::string> names_;
  std::vector<ValueId> leaves_;
  std::vector<ValueId> leaf_of_slot_;
  NodeId head_ = kNoNode;
  NodeId tail_ = kNoNode;
  NodeId cursor_ = kNoNode;
  Phase phase_ = Phase::forward;
  ScopeId scope_ = 0;
  Numerics numerics_;
};

struct OutputSpec {
  DType dtype = DType::f32;
  Shape shape;
};

// What an op's shape rule sees.
class InferContext {
 public:
  static constexpr int kMaxOutputs = 8;

  InferContext(const Graph& graph, const OpDef& op, std::span<const ValueId> inputs,
               const Attrs& attrs)
      : graph_(graph), op_(op), inputs_(inputs), attrs_(attrs) {}

  int input_count() const { return static_cast<int>(inputs_.size()); }
  bool has(int i) const { return i < input_count() && inputs_[static_cast<size_t>(i)] != kNoValue; }
  const Shape& shape(int i) const { return graph_.shape(inputs_[static_cast<size_t>(i)]); }
  DType dtype(int i) const { return graph_.dtype(inputs_[static_cast<size_t>(i)]); }
  template <typename T>
  T attr() const {
    return attrs_.as<T>();
  }
  void output(DType dtype, const Shape& shape) {
    if (count_ == kMaxOutputs) {
      fail("more than {} outputs", kMaxOutputs);
    }
    outputs_[static_cast<size_t>(count_++)] = {dtype, shape};
  }
  std::span<const OutputSpec> outputs() const {
    return {outputs_.data(), static_cast<size_t>(count_)};
  }

  // ---- checks; each throws ShapeError naming the op
  void expect_inputs(int least, int most = -1) const;
  void expect_floating(int i) const;
  void expect_same_dtype(int a, int b) const;
  void expect_shape(int i, const Shape& wanted, std::string_view what) const;
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw ShapeError(op_.name, "{}", fmt::format(text, std::forward<Args>(args)...));
  }

 private:
  const Graph& graph_;
  const OpDef& op_;
  std::span<const ValueId> inputs_;
  const Attrs& attrs_;
  std::array<OutputSpec, kMaxOutputs> outputs_;
  int count_ = 0;
};

}  // namespace lithe
