// Normalisations; statistics in fp32 (fp64 for fp64), biased variance. Backward keeps the input and
// 8 bytes a row (mean, 1/std), or 4 for RMS norm. Layer norm: Ba et al. (arXiv 1607.06450); RMS
// norm: Zhang and Sennrich (arXiv 1910.07467); group norm: Wu and He (arXiv 1803.08494).
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct NormAttrs {
  double eps = 1e-12;
  int groups = 1;  // group norm only
};
// Of the ops that give the parameters' gradients.
struct NormGradAttrs {
  int groups = 1;          // group norm only
  bool with_beta = false;  // layer norm only: a second output, beta's gradient from the same pass
};

// (x - mean) / sqrt(variance + eps) * gamma + beta over the last dimension; gamma and beta [H].
ValueId layer_norm(Graph& graph, ValueId x, ValueId gamma, ValueId beta, double eps);
// x / sqrt(mean(x²) + eps) * gamma over the last dimension.
ValueId rms_norm(Graph& graph, ValueId x, ValueId gamma, double eps);
// x [B, ..., C] (channels last), statistics over all positions and the C / groups channels of a
// group; gamma and beta [C].
ValueId group_norm(Graph& graph, ValueId x, ValueId gamma, ValueId beta, int groups, double eps);

extern const OpDef layer_norm_op, rms_norm_op, group_norm_op;
// Split gradients: dx, and the parameters' (dgamma, dbeta), so that freezing either drops its work;
// beta's gradient alone (sum of dy) keeps nothing: bias_grad_op of matmul.h. Layer norm's x and
// parameters together are one pass: residual_norm_grad_op of residual_norm.h.
extern const OpDef layer_norm_dx_op, layer_norm_dgamma_op, rms_norm_dx_op, rms_norm_dgamma_op,
    group_norm_dx_op, group_norm_dgamma_op;
// Operands: forward (x, gamma, beta) -> (y, mean, rstd); dx (dy, x, mean, rstd, gamma) -> dx;
// dgamma (dy, x, mean, rstd) -> (dgamma[, dbeta]). RMS norm has no beta and no mean. mean and rstd
// are [rows], group norm's [B, groups].

void layer_norm_cpu(const KernelArgs& args);
void layer_norm_dx_cpu(const KernelArgs& args);
void layer_norm_dgamma_cpu(const KernelArgs& args);
void rms_norm_cpu(const KernelArgs& args);
void rms_norm_dx_cpu(const KernelArgs& args);
void rms_norm_dgamma_cpu(const KernelArgs& args);
void group_norm_cpu(const KernelArgs& args);
void group_norm_dx_cpu(const KernelArgs& args);
void group_norm_dgamma_cpu(const KernelArgs& args);

}  // namespace lithe
