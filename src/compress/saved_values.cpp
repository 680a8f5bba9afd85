#include "compress/saved_values.h"

#include <algorithm>
#include <array>

#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/dropout_mask.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm.h"
#include "tensor/ops/softmax.h"

namespace lithe {

using namespace saved_role;  // NOLINT(google-build-using-namespace): constants, named as they are

namespace {

constexpr uint32_t kScaleTrained = 1u << 31;  // of a norm input: the pass over it sums dgamma

bool keeps_input(Activation kind) {
  return kind == Activation::gelu || kind == Activation::gelu_tanh ||
         kind == Activation::quick_gelu || kind == Activation::silu;
}

bool is_activation(const OpDef* op) {
  constexpr std::array<const OpDef*, 7> kOps = {&gelu_op, &gelu_tanh_op, &quick_gelu_op, &silu_op,
                                                &relu_op, &tanh_op,      &sigmoid_op};
  return std::find(kOps.begin(), kOps.end(), op) != kOps.end();
}

// What input i of backward node n says of the value that it reads.
uint32_t role_of_reader(const Graph& g, NodeId n, int i) {
  const OpDef* op = g.node(n).op;
  if (op == &attention_grad_op) {
    constexpr std::array<uint32_t, 5> kRoles = {kQuery, kKey, kValue, kAttentionOutput,
                                                kStatistics};
    return i < 5 ? kRoles[static_cast<size_t>(i)] : 0;
  }
  if (op == &activation_grad_op) {
    return i == 1 && keeps_input(g.attr<ActivationAttrs>(n).kind) ? kGeluInput : 0;
  }
  const bool rms = op == &rms_norm_dx_op || op == &rms_norm_dgamma_op;
  const bool dgamma = op == &rms_norm_dgamma_op || op == &layer_norm_dgamma_op ||
                      op == &group_norm_dgamma_op ||
                      (op == &residual_norm_grad_op && g.attr<ResidualNormGradAttrs>(n).gamma);
  if (rms || dgamma || op == &layer_norm_dx_op || op == &group_norm_dx_op ||
      op == &residual_norm_grad_op) {
    if (i == 1) {
      return kNormInput | (dgamma ? kScaleTrained : 0);
    }
    return i == 2 || (i == 3 && !rms) ? kStatistics | kNormStatistics : 0;
  }
  if (op == &dropout_apply_op) {
    return i == 1 ? kDropoutMask : 0;
  }
  return 0;
}

// What forward nodes say of the values that they read and make.
class ForwardRoles {
 public:
  ForwardRoles(const Graph& g, const std::vector<ValueId>& root)
      : g_(g), root_(root), roles_(root.size(), 0) {
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      if (g.node(n).phase == Phase::forward) {
        visit(n);
      }
    }
  }
  uint32_t of(ValueId root) const { return roles_[static_cast<size_t>(root)]; }

 private:
  uint32_t& at(ValueId v) { return roles_[static_cast<size_t>(root_[static_cast<size_t>(v)])]; }
  void visit(NodeId n) {
    const OpDef* op = g_.node(n).op;
    if (op == &linear_op || op == &linear_stack_op) {
      at(g_.in(n, 0)) |= kLinearInput;
    } else if (op == &softmax_op) {
      const NodeId scores = g_.value(g_.in(n, 0)).producer;
      if (scores != kNoNode && g_.node(scores).op == &matmul_op) {
        at(g_.in(scores, 0)) |= kQuery;
        at(g_.in(scores, 1)) |= kKey;
        at(g_.output(n, 0)) |= kProbabilities;
      }
    } else if ((op == &dropout_op || op == &dropout_apply_op) &&
               (at(g_.in(n, 0)) & kProbabilities) != 0) {
      at(g_.output(n, 0)) |= kDroppedProbabilities;
    } else if (op == &matmul_op &&
               (at(g_.in(n, 0)) & (kProbabilities | kDroppedProbabilities)) != 0) {
      at(g_.in(n, 1)) |= kValue;
    }
  }

  const Graph& g_;
  const std::vector<ValueId>& root_;
  std::vector<uint32_t> roles_;
};

std::vector<ValueId> roots_of(const Graph& g) {
  std::vector<ValueId> root(static_cast<size_t>(g.value_count()));
  for (size_t v = 0; v < root.size(); ++v) {
    root[v] = static_cast<ValueId>(v);
  }
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    for (const AliasRule& rule : g.node(n).op->aliases) {
      if (rule.kind == Alias::view && g.in(n, rule.input) != kNoValue) {
        root[static_cast<size_t>(g.output(n, rule.output))] =
            root[static_cast<size_t>(g.in(n, rule.input))];
      }
    }
  }
  return root;
}

bool is_view(const Graph& g, NodeId n) { return g.node(n).op->aliases[0].kind == Alias::view; }

bool reads_as_linear(const OpDef* op) { return op == &matmul_op || op->name.starts_with("linear"); }

// A weight in another type, which backward reads beside the activations.
bool copies_weight(const Graph& g, NodeId made) {
  return g.node(made).op == &cast_op && g.value(g.in(made, 0)).slot != kNoSlot;
}

uint32_t joined(const Graph& g, ValueId v, uint32_t by_readers, uint32_t by_forward, bool linear) {
  const NodeId made = g.value(v).producer;
  const bool trained = (by_readers & kScaleTrained) != 0;
  uint32_t roles = by_readers & ~kScaleTrained;
  roles |= (roles & kNormInput) != 0 && !trained ? kFrozenNormInput | kFrozenNormOutput : 0u;
  roles |= by_forward & ~kLinearInput;
  if (linear && (by_forward & kLinearInput) != 0) {
    const OpDef* op = g.node(made).op;
    const bool fused = op == &linear_op && g.value(v).output_index == 0 &&
                       g.attr<LinearAttrs>(made).activation != Activation::none;
    roles |= kLinearInput | (fused || is_activation(op) ? kActivationOutput : 0u);
  }
  return roles;
}

}  // namespace

std::span<const SavedRoleName> saved_role_names() {
  static constexpr SavedRoleName kNames[] = {
      {"any", ~uint32_t{0}},
      {"norm_input", kNormInput},
      {"frozen_norm_input", kFrozenNormInput},
      {"frozen_norm_output", kFrozenNormOutput},
      {"norm_statistics", kNormStatistics},
      {"dropout_mask", kDropoutMask},
      {"gelu_input", kGeluInput},
      {"attention", kQuery | kKey | kValue},
      {"query", kQuery},
      {"key", kKey},
      {"value", kValue},
      {"attention_output", kAttentionOutput},
      {"probabilities", kProbabilities},
      {"dropped_probabilities", kDroppedProbabilities},
      {"linear_input", kLinearInput},
      {"activation_output", kActivationOutput},
  };
  return kNames;
}

std::vector<SavedValue> saved_values(const Graph& g) {
  const std::vector<ValueId> root = roots_of(g);
  const ForwardRoles forward(g, root);
  std::vector<int32_t> index(static_cast<size_t>(g.value_count()), -1);
  std::vector<SavedValue> found;
  std::vector<uint32_t> by_readers;
  std::vector<bool> linear;
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    if (g.node(n).phase == Phase::forward || is_view(g, n)) {
      continue;
    }
    for (int i = 0; i < g.node(n).input_count; ++i) {
      if (g.in(n, i) == kNoValue) {
        continue;
      }
      const ValueId v = root[static_cast<size_t>(g.in(n, i))];
      const NodeId made = g.value(v).producer;
      if (made == kNoNode || g.node(made).phase != Phase::forward || copies_weight(g, made)) {
        continue;
      }
      int32_t& at = index[static_cast<size_t>(v)];
      if (at < 0) {
        at = static_cast<int32_t>(found.size());
        found.push_back({v, 0, {}});
        by_readers.push_back(0);
        linear.push_back(false);
      }
      found[static_cast<size_t>(at)].readers.push_back({n, i});
      by_readers[static_cast<size_t>(at)] |= role_of_reader(g, n, i);
      linear[static_cast<size_t>(at)] =
          linear[static_cast<size_t>(at)] || reads_as_linear(g.node(n).op);
    }
  }
  for (size_t i = 0; i < found.size(); ++i) {
    found[i].roles =
        joined(g, found[i].value, by_readers[i], forward.of(found[i].value), linear[i]);
  }
  std::vector<SavedValue> out;  // as made
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    for (ValueId v : g.outputs(n)) {
      if (const int32_t at = index[static_cast<size_t>(v)]; at >= 0) {
        out.push_back(std::move(found[static_cast<size_t>(at)]));
      }
    }
  }
  return out;
}

ValueId viewed(const Graph& g, ValueId v) {
  for (NodeId n = g.value(v).producer; n != kNoNode && is_view(g, n); n = g.value(v).producer) {
    v = g.in(n, g.node(n).op->aliases[0].input);
  }
  return v;
}

}  // namespace lithe
