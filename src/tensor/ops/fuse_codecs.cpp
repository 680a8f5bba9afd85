#include "tensor/ops/fuse_codecs.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/ops/activation_codes.h"
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

class CodecFusion {
 public:
  explicit CodecFusion(Graph& g)
      : g_(g),
        readers_(static_cast<size_t>(g.value_count()), 0),
        encoding_(readers_.size(), kNoNode),
        to_(readers_.size(), kNoValue),
        gone_(static_cast<size_t>(g.node_count()), false) {
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      for (ValueId v : g.inputs(n)) {
        if (v != kNoValue) {
          ++readers_[static_cast<size_t>(v)];
        }
      }
      if (is_encode(g.node(n).op) && g.node(n).phase == Phase::forward &&
          code_of(g, n).kind != SavedCode::Kind::none) {
        encoding_[static_cast<size_t>(g.in(n, 0))] = n;
      }
    }
  }

  int run(std::span<ParameterGradient> gradients) {
    const ScopeId scope = g_.current_scope();
    const Phase phase = g_.phase();
    int fused = 0;
    for (const NodeId n : g_.order()) {
      g_.set_cursor(n);
      g_.set_scope(g_.node(n).scope);
      g_.set_phase(g_.node(n).phase);
      fused += fuse(n) ? 1 : 0;
    }
    if (fused > 0) {
      g_.replace_uses(to_);
      for (size_t n = 0; n < gone_.size(); ++n) {
        if (gone_[n]) {
          g_.erase(static_cast<NodeId>(n));
        }
      }
      for (ParameterGradient& p : gradients) {
        const ValueId now = to_[static_cast<size_t>(p.gradient)];
        p.gradient = now == kNoValue ? p.gradient : now;
      }
    }
    g_.set_cursor(kNoNode);
    g_.set_scope(scope);
    g_.set_phase(phase);
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

  int readers(ValueId v) const { return readers_[static_cast<size_t>(v)]; }

  // How v is coded, where every group lies in neighbouring lanes.
  Encoding encoding_of(ValueId v) const {
    const NodeId n = encoding_[static_cast<size_t>(v)];
    const SavedCode code = n == kNoNode ? SavedCode{} : code_of(g_, n);
    return code.kind == SavedCode::Kind::none || !is_in_lanes(code, g_.shape(v))
               ? Encoding{}
               : Encoding{n, code};
  }

  // `with` takes the place of `from`, for outputs and gradients too.
  void replace(ValueId from, ValueId with) {
    to_[static_cast<size_t>(from)] = with;
    if (g_.value(from).is_output) {
      const std::string name = g_.name(from);
      g_.mark_output(with, name);
      g_.clear_output(from);
    }
    if (g_.value(from).is_gradient) {
      g_.mark_gradient(with);
    }
  }
  void erase(NodeId n) { gone_[static_cast<size_t>(n)] = true; }
  // The outputs of `made` from `first` on take the place of an encode node's.
  void replace_codes(const Encoding& e, NodeId made, int first) {
    for (int i = 0; i < e.code.parts(); ++i) {
      replace(g_.output(e.node, i), g_.output(made, first + i));
    }
    if (e.node != kNoNode) {
      erase(e.node);
    }
  }

  // activation_codes of x where `n` makes y.
  bool emit_activation(ValueId x, ValueId y, Activation kind, const Encoding& of_x,
                       const Encoding& of_y) {
    const ActivationCodesAttrs attrs{kind, of_x.code, of_y.code};
    const NodeId made = g_.emit_node(activation_codes_op, std::array{x}, attrs);
    replace(y, g_.output(made, 0));
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
    replace(g_.output(n, 1), x);
    erase(n);
    return emit_activation(x, g_.output(n, 0), kind, of_x, of_y);
  }

  bool fuse_activation(NodeId n, Activation kind) {
    const Encoding of_x = encoding_of(g_.in(n, 0));
    const Encoding of_y = encoding_of(g_.output(n, 0));
    if ((of_x.node == kNoNode && of_y.node == kNoNode) || gone_of(of_x.node)) {
      return false;
    }
    erase(n);
    return emit_activation(g_.in(n, 0), g_.output(n, 0), kind, of_x, of_y);
  }

  // Whether another reader of the same value has taken over its coding.
  bool gone_of(NodeId n) const { return n != kNoNode && gone_[static_cast<size_t>(n)]; }

  bool fuse_norm(NodeId n) {
    const ValueId sum = g_.output(n, 1);
    const Encoding of_sum = encoding_of(sum);
    if (!is_walked_in_codes(of_sum.code, g_.dtype(sum), g_.shape(sum))) {
      return false;
    }
    const std::vector<ValueId> inputs(g_.inputs(n).begin(), g_.inputs(n).end());
    const bool read_on = readers(sum) > 1 || g_.value(sum).is_output;
    const ResidualNormCodesAttrs attrs{g_.attr<ResidualNormAttrs>(n), of_sum.code, read_on};
    const NodeId made = g_.emit_node(residual_norm_codes_op, inputs, attrs);
    replace(g_.output(n, 0), g_.output(made, 0));
    replace(g_.output(n, 2), g_.output(made, 1));
    replace(g_.output(n, 3), g_.output(made, 2));
    replace_codes(of_sum, made, 3);
    if (read_on) {
      replace(sum, g_.output(made, 5));
    }
    erase(n);
    return true;
  }

  // The node that restores v for this reader alone.
  NodeId sole_decoding(ValueId v, const OpDef& op) const {
    const NodeId made = g_.value(v).producer;
    const bool sole = made != kNoNode && g_.node(made).op == &op && readers(v) == 1 &&
                      !g_.value(v).is_output && code_of(g_, made).kind != SavedCode::Kind::none;
    return sole ? made : kNoNode;
  }

  bool fuse_activation_grad(NodeId n) {
    const NodeId decoding = sole_decoding(g_.in(n, 1), fixed_point_decode_op);
    if (decoding == kNoNode) {
      return false;
    }
    const ActivationCodesGradAttrs attrs{g_.attr<ActivationAttrs>(n),
                                         g_.attr<FixedPointAttrs>(decoding)};
    const std::array<ValueId, 2> inputs = {g_.in(n, 0), g_.in(decoding, 0)};
    return replace_all(n, decoding, g_.emit_node(activation_codes_grad_op, inputs, attrs));
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
    return replace_all(n, decoding, g_.emit_node(residual_norm_codes_grad_op, inputs, attrs));
  }

  bool replace_all(NodeId n, NodeId decoding, NodeId made) {
    for (int i = 0; i < g_.node(made).output_count; ++i) {
      replace(g_.output(n, i), g_.output(made, i));
    }
    erase(n);
    erase(decoding);
    return true;
  }

  Graph& g_;
  std::vector<int> readers_;      // of each value
  std::vector<NodeId> encoding_;  // of each value
  std::vector<ValueId> to_;
  std::vector<bool> gone_;
};

}  // namespace

int fuse_codecs(Graph& graph, std::span<ParameterGradient> gradients) {
  return CodecFusion(graph).run(gradients);
}

}  // namespace lithe
