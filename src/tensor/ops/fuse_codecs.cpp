#include "tensor/ops/fuse_codecs.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/graph/rewrite.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm_codes.h"

namespace lithe {
namespace {

// An encode node of a value in forward; none where rounding is random.
struct Encoding {
  NodeId node = kNoNode;
  SavedCode code = {};
};

bool is_encode(const OpDef* op) {
  return op == &fixed_point_encode_op || op == &quantize_encode_op;
}

Activation activation_of(const OpDef* op) {
  constexpr std::array<std::pair<const OpDef*, Activation>, 7> kOps = {
      {{&gelu_op, Activation::gelu},
       {&gelu_tanh_op, Activation::gelu_tanh},
       {&quick_gelu_op, Activation::quick_gelu},
       {&silu_op, Activation::silu},
       {&relu_op, Activation::relu},
       {&tanh_op, Activation::tanh},
       {&sigmoid_op, Activation::sigmoid}}};
  const auto at =
      std::find_if(kOps.begin(), kOps.end(), [&](const auto& k) { return k.first == op; });
  return at == kOps.end() ? Activation::none : at->second;
}

// Whether a value is coded alike with its heads in one row and in rows of their own.
bool has_whole_heads(const SavedCode& code, const Shape& x, const Shape& heads) {
  return is_in_lanes(code, x) && is_in_lanes(code, heads) &&
         QuantizeLayout(x, code.quantize()).group == QuantizeLayout(heads, code.quantize()).group;
}

bool is_same(const SavedCode& a, const SavedCode& b) {
  return a.kind == b.kind && a.bits == b.bits && a.scale == b.scale && a.group == b.group;
}

class CodecFusion {
 public:
  CodecFusion(Graph& g, DeviceKind device)
      : g_(g),
        attends_in_codes_(device != DeviceKind::cpu),
        readers_(g),
        rewrite_(g),
        encoding_(static_cast<size_t>(g.value_count()), kNoNode) {
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      if (is_encode(g.node(n).op) && g.node(n).phase == Phase::forward &&
          code_of(g, n).kind != SavedCode::Kind::none) {
        encoding_[static_cast<size_t>(g.in(n, 0))] = n;
      }
    }
  }

  int run(std::span<ParameterGradient> gradients) {
    int fused = 0;
    for (const NodeId n : g_.order()) {
      rewrite_.at(n);
      fused += fuse(n) ? 1 : 0;
    }
    rewrite_.finish(gradients);
    return fused;
  }

 private:
  bool fuse(NodeId n) {
    const OpDef* op = g_.node(n).op;
    if (op == &activation_grad_op) {
      return fuse_activation_grad(n);
    }
    if (op == &residual_norm_grad_op || op == &layer_norm_dx_op) {
      return fuse_norm_grad(n);
    }
    if (op == &attention_grad_op) {
      return attends_in_codes_ && fuse_attention_grad(n);
    }
    if (g_.node(n).phase != Phase::forward) {
      return false;  // computed again: what it reads or makes was coded long before
    }
    if (op == &linear_op) {
      const Activation kind = g_.attr<LinearAttrs>(n).activation;
      return kind != Activation::none && fuse_linear(n, kind);
    }
    if (op == &residual_norm_op) {
      return fuse_norm(n);
    }
    const Activation kind = activation_of(op);
    return kind != Activation::none && fuse_activation(n, kind);
  }

  // How v is coded, where every group lies in neighbouring lanes.
  Encoding encoding_of(ValueId v) const {
    const NodeId n = encoding_[static_cast<size_t>(v)];
    const SavedCode code = n == kNoNode ? SavedCode{} : code_of(g_, n);
    return code.kind == SavedCode::Kind::none || !is_in_lanes(code, g_.shape(v))
               ? Encoding{}
               : Encoding{n, code};
  }

  // The outputs of `made` from `first` on take the place of an encode node's.
  void replace_codes(const Encoding& e, NodeId made, int first) {
    for (int i = 0; i < e.code.parts(); ++i) {
      rewrite_.replace(g_.output(e.node, i), g_.output(made, first + i));
    }
    if (e.node != kNoNode) {
      rewrite_.erase(e.node);
    }
  }

  // activation_codes of x where `n` makes y.
  bool emit_activation(ValueId x, ValueId y, Activation kind, const Encoding& of_x,
                       const Encoding& of_y) {
    const ActivationCodesAttrs attrs{kind, of_x.code, of_y.code};
    const NodeId made = g_.emit_node(activation_codes_op, std::array{x}, attrs);
    rewrite_.replace(y, g_.output(made, 0));
    replace_codes(of_x, made, 1);
    replace_codes(of_y, made, 1 + of_x.code.parts());
    return true;
  }

  bool fuse_linear(NodeId n, Activation kind) {
    const Encoding of_x = encoding_of(g_.output(n, 1));
    const Encoding of_y = encoding_of(g_.output(n, 0));
    if (of_x.node == kNoNode && of_y.node == kNoNode) {
      return false;
    }
    const std::vector<ValueId> inputs(g_.inputs(n).begin(), g_.inputs(n).end());
    const NodeId product = g_.emit_node(linear_op, inputs, LinearAttrs{});
    const ValueId x = g_.output(product, 0);
    rewrite_.replace(g_.output(n, 1), x);
    rewrite_.erase(n);
    return emit_activation(x, g_.output(n, 0), kind, of_x, of_y);
  }

  bool fuse_activation(NodeId n, Activation kind) {
    const Encoding of_x = encoding_of(g_.in(n, 0));
    const Encoding of_y = encoding_of(g_.output(n, 0));
    if ((of_x.node == kNoNode && of_y.node == kNoNode) || gone_of(of_x.node)) {
      return false;
    }
    rewrite_.erase(n);
    return emit_activation(g_.in(n, 0), g_.output(n, 0), kind, of_x, of_y);
  }

  // Whether another reader of the same value has taken over its coding.
  bool gone_of(NodeId n) const { return n != kNoNode && rewrite_.is_erased(n); }

  bool fuse_norm(NodeId n) {
    const ValueId sum = g_.output(n, 1);
    const Encoding of_sum = encoding_of(sum);
    if (!is_walked_in_codes(of_sum.code, g_.dtype(sum), g_.shape(sum))) {
      return false;
    }
    const std::vector<ValueId> inputs(g_.inputs(n).begin(), g_.inputs(n).end());
    const bool read_on = readers_.count(sum) > 1 || g_.value(sum).is_output;
    const ResidualNormCodesAttrs attrs{g_.attr<ResidualNormAttrs>(n), of_sum.code, read_on};
    const NodeId made = g_.emit_node(residual_norm_codes_op, inputs, attrs);
    rewrite_.replace(g_.output(n, 0), g_.output(made, 0));
    rewrite_.replace(g_.output(n, 2), g_.output(made, 1));
    rewrite_.replace(g_.output(n, 3), g_.output(made, 2));
    replace_codes(of_sum, made, 3);
    if (read_on) {
      rewrite_.replace(sum, g_.output(made, 5));
    }
    rewrite_.erase(n);
    return true;
  }

  // Whether v is another shape of a value, for one reader alone.
  bool is_sole_view(ValueId v) const { return readers_.sole_source(g_, v, reshape_op) != kNoNode; }

  // The node that restores v for this reader alone.
  NodeId sole_decoding(ValueId v, const OpDef& op) const {
    const NodeId made = readers_.sole_source(g_, v, op);
    return made != kNoNode && code_of(g_, made).kind != SavedCode::Kind::none ? made : kNoNode;
  }

  bool fuse_activation_grad(NodeId n) {
    NodeId decoding = sole_decoding(g_.in(n, 1), fixed_point_decode_op);
    if (decoding == kNoNode) {
      decoding = sole_decoding(g_.in(n, 1), quantize_decode_op);
    }
    if (decoding == kNoNode || !is_in_lanes(code_of(g_, decoding), g_.shape(g_.in(n, 1)))) {
      return false;
    }
    const ActivationCodesGradAttrs attrs{g_.attr<ActivationAttrs>(n), code_of(g_, decoding)};
    std::vector<ValueId> inputs = {g_.in(n, 0)};
    inputs.insert(inputs.end(), g_.inputs(decoding).begin(), g_.inputs(decoding).end());
    return replace_all(n, {&decoding, 1}, g_.emit_node(activation_codes_grad_op, inputs, attrs));
  }

  bool fuse_norm_grad(NodeId n) {
    const ValueId x = g_.in(n, 1);
    const NodeId decoding = sole_decoding(x, quantize_decode_op);
    if (decoding == kNoNode) {
      return false;
    }
    ResidualNormCodesGradAttrs attrs{{.sum = true}, code_of(g_, decoding)};
    if (g_.node(n).op == &residual_norm_grad_op) {
      attrs.grad = g_.attr<ResidualNormGradAttrs>(n);
    }
    if (!is_walked_in_codes(attrs.code, g_.dtype(x), g_.shape(x))) {
      return false;
    }
    std::array<ValueId, 8> inputs;
    inputs.fill(kNoValue);
    std::copy(g_.inputs(n).begin(), g_.inputs(n).end(), inputs.begin());
    inputs[1] = g_.in(decoding, 0);
    inputs[7] = g_.in(decoding, 1);
    return replace_all(n, {&decoding, 1}, g_.emit_node(residual_norm_codes_grad_op, inputs, attrs));
  }

  bool fuse_attention_grad(NodeId n) {
    const Shape q = g_.shape(g_.in(n, 0));
    const DType dtype = g_.dtype(g_.in(n, 0));
    AttentionCodesGradAttrs attrs{g_.attr<AttentionGradAttrs>(n), {}};
    std::array<ValueId, 11> inputs;
    inputs.fill(kNoValue);
    std::copy(g_.inputs(n).begin(), g_.inputs(n).end(), inputs.begin());
    std::vector<NodeId> restoring;  // decodings of q, k and v, and views of what they give
    std::array<NodeId, 3> decoding;
    for (size_t i = 0; i < decoding.size(); ++i) {
      ValueId v = inputs[i];
      for (; is_sole_view(v); v = g_.in(g_.value(v).producer, 0)) {
        restoring.push_back(g_.value(v).producer);
      }
      decoding[i] = sole_decoding(v, quantize_decode_op);
      if (decoding[i] == kNoNode) {
        return false;
      }
      restoring.push_back(decoding[i]);
      const SavedCode code = code_of(g_, decoding[i]);
      attrs.code = i == 0 ? code : attrs.code;
      if (!is_same(code, attrs.code) || !has_whole_heads(code, g_.shape(v), g_.shape(inputs[i]))) {
        return false;
      }
    }
    if (!is_differentiated_in_codes(attrs.code, dtype, q, attrs.grad.forward.scale)) {
      return false;
    }
    for (size_t i = 0; i < decoding.size(); ++i) {
      const Shape heads = g_.shape(inputs[i]);
      inputs[i] = reshape(g_, g_.in(decoding[i], 0), heads);
      inputs[8 + i] =
          reshape(g_, g_.in(decoding[i], 1), quantize_scales_shape(heads, attrs.code.quantize()));
    }
    return replace_all(n, restoring, g_.emit_node(attention_codes_grad_op, inputs, attrs));
  }

  bool replace_all(NodeId n, std::span<const NodeId> restoring, NodeId made) {
    rewrite_.replace_node(n, made);
    for (const NodeId node : restoring) {
      rewrite_.erase(node);
    }
    return true;
  }

  Graph& g_;
  bool attends_in_codes_;
  Readers readers_;
  Rewrite rewrite_;
  std::vector<NodeId> encoding_;  // of each value
};

}  // namespace

int fuse_codecs(Graph& graph, std::span<ParameterGradient> gradients, DeviceKind device) {
  return CodecFusion(graph, device).run(gradients);
}

}  // namespace lithe
