// Weights are expressions: a layer asks its weight to multiply and never looks inside, so a weight
// may become quantized, sparse or the sum of a frozen base and an adapter without the layer
// noticing.
#pragma once

#include <vector>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"

namespace lithe::nn {

// The slot's tensor in the dtype in which a layer computes: its copy, where it has one of that
// dtype (the gradient is then the copy's), or else converted.
inline ValueId leaf_as(Graph& graph, SlotId slot, DType dtype) {
  const SlotId copy = graph.slots()[slot].copy;
  if (copy != kNoSlot && graph.slots()[copy].dtype == dtype) {
    return graph.leaf(copy);
  }
  return cast(graph, graph.leaf(slot), dtype);
}

class Weight {
 public:
  virtual ~Weight() = default;

  virtual Shape shape() const = 0;  // [out, in]
  // y = f(x Wᵀ + b) in x's dtype; the kernel is chosen here, when the graph is built. bias is in
  // x's dtype or kNoValue.
  virtual LinearOut multiply(Graph& graph, ValueId x, ValueId bias, Activation fused) const = 0;
  // The dense matrix as nodes: every expression's oracle.
  virtual ValueId dense(Graph& graph) const = 0;
  // The persistent tensors behind it.
  virtual std::vector<SlotId> slots() const = 0;
};

// One dense matrix in one slot.
class Dense final : public Weight {
 public:
  Dense(SlotId slot, const Shape& shape) : slot_(slot), shape_(shape) {}

  Shape shape() const override { return shape_; }
  LinearOut multiply(Graph& graph, ValueId x, ValueId bias, Activation fused) const override {
    return linear(graph, x, leaf_as(graph, slot_, graph.dtype(x)), bias, fused);
  }
  ValueId dense(Graph& graph) const override { return graph.leaf(slot_); }
  std::vector<SlotId> slots() const override { return {slot_}; }

 private:
  SlotId slot_;
  Shape shape_;
};

}  // namespace lithe::nn
