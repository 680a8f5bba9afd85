// Layers shared by the models. They compute in the dtype of x: weights of another are converted.
#pragma once

#include <memory>

#include "nn/module.h"
#include "nn/weight.h"
#include "tensor/ops/embedding.h"

namespace lithe::nn {

// The dtype of a model's activations: `compute`, but fp64 weights compute in fp64.
inline DType activation_dtype(DType weights, DType compute) {
  return weights == DType::f64 ? DType::f64 : compute;
}
// The dtype of its logits and loss.
inline DType logits_dtype(DType weights) { return weights == DType::f64 ? DType::f64 : DType::f32; }

// y = f(x Wᵀ + b), x [..., in] -> [..., out].
class Linear final : public Module {
 public:
  Linear(SlotTable& slots, std::string path, int64_t in, int64_t out, bool bias, Init weight_init);

  std::string_view kind() const override { return "linear"; }
  // A fused activation's backward keeps what its input is computed from, and its output only for
  // the weight gradient of the layer that reads it.
  ValueId forward(Graph& graph, ValueId x, Activation fused = Activation::none) const;
  bool draws() const override { return weight_->draws(); }
  // Of the matrix: its expression's dense form.
  Tensor file_value(const Parameter& parameter,
                    const std::function<Tensor(SlotId)>& get) const override;
  const Weight& weight() const { return *weight_; }
  SlotId bias() const { return bias_; }  // kNoSlot: none
  // Passes that change how the matrix is held put another expression here; returns the one before.
  std::unique_ptr<Weight> set_weight(std::unique_ptr<Weight> weight) {
    return std::exchange(weight_, std::move(weight));
  }

 private:
  std::unique_ptr<Weight> weight_;
  SlotId bias_ = kNoSlot;
};

// Over the last dimension, with scale and shift [H].
class LayerNorm final : public Module {
 public:
  LayerNorm(SlotTable& slots, std::string path, int64_t size, double eps);

  std::string_view kind() const override { return "layer_norm"; }
  ValueId forward(Graph& graph, ValueId x) const;

 private:
  SlotId gamma_;
  SlotId beta_;
  double eps_;
};

// A table of vectors [V, H].
class Embedding final : public Module {
 public:
  Embedding(SlotTable& slots, std::string path, int64_t vocabulary, int64_t size, Init init);

  std::string_view kind() const override { return "embedding"; }
  // ids int64 [...] -> [..., H] in the table's dtype; the row `padding` gets no gradient.
  ValueId forward(Graph& graph, ValueId ids, int64_t padding = kNoPadding) const;
  // The first `count` rows, [count, H].
  ValueId first_rows(Graph& graph, int64_t count) const;

 private:
  SlotId weight_;
};

// Images [B, H, W, C] -> [B, H', W', O].
class Conv2d final : public Module {
 public:
  Conv2d(SlotTable& slots, std::string path, int64_t in, int64_t out, int64_t kernel, int stride,
         int padding, Init weight_init);

  std::string_view kind() const override { return "conv2d"; }
  ValueId forward(Graph& graph, ValueId x) const;

 private:
  SlotId weight_;
  SlotId bias_;
  int stride_;
  int padding_;
};

}  // namespace lithe::nn
