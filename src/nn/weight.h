// Weights are expressions: a layer asks its weight to multiply and never looks inside, so a weight
// may become quantized, sparse or the sum of a frozen base and an adapter without the layer
// noticing.
#pragma once

#include <functional>
#include <memory>
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
  // y + x Wᵀ: the weight as a further term of a sum.
  virtual ValueId multiply_onto(Graph& graph, ValueId x, ValueId y) const {
    return add(graph, y, multiply(graph, x, kNoValue, Activation::none).y);
  }
  // The dense matrix as nodes: every expression's oracle.
  virtual ValueId dense(Graph& graph) const = 0;
  // The persistent tensors behind it.
  virtual std::vector<SlotId> slots() const = 0;
  // Whether multiplying in training draws random numbers (Module::draws).
  virtual bool draws() const { return false; }
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

// scale · B A of rank r, A [r, in] and B [out, r]: LoRA's delta (Hu et al. 2021, arXiv 2106.09685).
// In training x is dropped out first: y = scale · drop(x) Aᵀ Bᵀ.
class LowRank final : public Weight {
 public:
  struct Options {
    double scale = 1;
    double dropout = 0;
    uint64_t dropout_key = 0;  // of the site (site_key.h)
  };
  LowRank(SlotId a, SlotId b, const Shape& shape, const Options& options)
      : a_(a), b_(b), shape_(shape), options_(options) {}

  Shape shape() const override { return shape_; }
  LinearOut multiply(Graph& graph, ValueId x, ValueId bias, Activation fused) const override;
  ValueId multiply_onto(Graph& graph, ValueId x, ValueId y) const override;
  ValueId dense(Graph& graph) const override;
  std::vector<SlotId> slots() const override { return {a_, b_}; }
  bool draws() const override { return options_.dropout > 0; }

 private:
  ValueId product(Graph& graph, ValueId x, ValueId addend) const;

  SlotId a_;
  SlotId b_;
  Shape shape_;
  Options options_;
};

// A base and what adapters add to it, of whatever kind each is. The base comes first: its product
// takes the bias, and stays what it is without the others (layers side by side still stack).
class Sum final : public Weight {
 public:
  // At least one term, all of one shape; throws ShapeError.
  explicit Sum(std::vector<std::unique_ptr<Weight>> terms);

  Shape shape() const override { return terms_.front()->shape(); }
  LinearOut multiply(Graph& graph, ValueId x, ValueId bias, Activation fused) const override;
  ValueId dense(Graph& graph) const override;
  std::vector<SlotId> slots() const override;
  bool draws() const override;

  const std::vector<std::unique_ptr<Weight>>& terms() const { return terms_; }
  // The base back, without the other terms; the sum is empty then.
  std::unique_ptr<Weight> take_base() { return std::move(terms_.front()); }

 private:
  std::vector<std::unique_ptr<Weight>> terms_;
};

// dense() computed on the CPU; get(slot) gives the value of each slot behind the weight.
Tensor dense_value(const Weight& weight, const SlotTable& slots,
                   const std::function<Tensor(SlotId)>& get);

}  // namespace lithe::nn
