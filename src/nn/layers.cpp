#include "nn/layers.h"

#include "tensor/ops/conv.h"
#include "tensor/ops/layout.h"
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

ValueId Linear::forward(Graph& graph, ValueId x, Activation fused) const {
  const ModuleScope scope(graph, *this);
  const ValueId bias = bias_ == kNoSlot ? kNoValue : leaf_as(graph, bias_, graph.dtype(x));
  return weight_->multiply(graph, x, bias, fused).y;
}

Tensor Linear::file_value(const Parameter& parameter,
                          const std::function<Tensor(SlotId)>& get) const {
  return parameter.name == "weight" ? dense_value(*weight_, slots(), get) : get(parameter.slot);
}

LayerNorm::LayerNorm(SlotTable& slots, std::string path, int64_t size, double eps)
    : Module(slots, std::move(path)),
      gamma_(add_parameter("weight", {size}, Init::ones())),
      beta_(add_parameter("bias", {size}, Init::zeros())),
      eps_(eps) {}

ValueId LayerNorm::forward(Graph& graph, ValueId x) const {
  const ModuleScope scope(graph, *this);
  const DType dtype = graph.dtype(x);
  return layer_norm(graph, x, leaf_as(graph, gamma_, dtype), leaf_as(graph, beta_, dtype), eps_);
}

Embedding::Embedding(SlotTable& slots, std::string path, int64_t vocabulary, int64_t size,
                     Init init)
    : Module(slots, std::move(path)), weight_(add_parameter("weight", {vocabulary, size}, init)) {
  slots[weight_].lookup = true;
}

ValueId Embedding::forward(Graph& graph, ValueId ids, int64_t padding) const {
  const ModuleScope scope(graph, *this);
  return embedding(graph, graph.leaf(weight_), ids, padding);
}

ValueId Embedding::first_rows(Graph& graph, int64_t count) const {
  const ModuleScope scope(graph, *this);
  return slice(graph, graph.leaf(weight_), 0, 0, count);
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
  const DType dtype = graph.dtype(x);
  return conv2d(graph, x, leaf_as(graph, weight_, dtype), leaf_as(graph, bias_, dtype),
                {.stride_h = stride_, .stride_w = stride_, .pad_h = padding_, .pad_w = padding_});
}

}  // namespace lithe::nn
