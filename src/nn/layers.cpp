#include "nn/layers.h"

#include "tensor/ops/conv.h"
#include "tensor/ops/norm.h"

namespace lithe::nn {

Linear::Linear(SlotTable& slots, std::string path, int64_t in, int64_t out, bool bias,
               Init weight_init)
    : Module(slots, std::move(path)) {
  weight_ =
      std::make_unique<Dense>(add_parameter("weight", {out, in}, weight_init), Shape{out, in});
  if (bias) {
    bias_ = add_parameter("bias", {out}, Init::zeros());
  }
}

ValueId Linear::forward(Graph& graph, ValueId x) const {
  const ModuleScope scope(graph, *this);
  const ValueId bias = bias_ == kNoSlot ? kNoValue : graph.leaf(bias_);
  return weight_->multiply(graph, x, bias, Activation::none).y;
}

LayerNorm::LayerNorm(SlotTable& slots, std::string path, int64_t size, double eps)
    : Module(slots, std::move(path)),
      gamma_(add_parameter("weight", {size}, Init::ones())),
      beta_(add_parameter("bias", {size}, Init::zeros())),
      eps_(eps) {}

ValueId LayerNorm::forward(Graph& graph, ValueId x) const {
  const ModuleScope scope(graph, *this);
  return layer_norm(graph, x, graph.leaf(gamma_), graph.leaf(beta_), eps_);
}

Conv2d::Conv2d(SlotTable& slots, std::string path, int64_t in, int64_t out, int64_t kernel,
               int stride, int padding, Init weight_init)
    : Module(slots, std::move(path)),
      weight_(
          add_parameter("weight", {out, kernel, kernel, in}, weight_init, FileLayout::conv_oihw)),
      bias_(add_parameter("bias", {out}, Init::zeros())),
      stride_(stride),
      padding_(padding) {}

ValueId Conv2d::forward(Graph& graph, ValueId x) const {
  const ModuleScope scope(graph, *this);
  return conv2d(graph, x, graph.leaf(weight_), graph.leaf(bias_),
                {.stride_h = stride_, .stride_w = stride_, .pad_h = padding_, .pad_w = padding_});
}

}  // namespace lithe::nn
