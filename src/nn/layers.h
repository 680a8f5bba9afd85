// Layers shared by the models.
#pragma once

#include <memory>

#include "nn/module.h"
#include "nn/weight.h"

namespace lithe::nn {

// y = f(x Wᵀ + b), x [..., in] -> [..., out].
class Linear final : public Module {
 public:
  Linear(SlotTable& slots, std::string path, int64_t in, int64_t out, bool bias, Init weight_init);

  std::string_view kind() const override { return "linear"; }
  ValueId forward(Graph& graph, ValueId x) const;
  const Weight& weight() const { return *weight_; }
  // Passes that change how the matrix is held put another expression here.
  void set_weight(std::unique_ptr<Weight> weight) { weight_ = std::move(weight); }

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
