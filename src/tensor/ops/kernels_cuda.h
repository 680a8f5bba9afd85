// The CUDA kernels of the op table; each computes what its x_cpu twin does. Operands and attributes
// are those of the op's own header. None allocates or synchronises.
#pragma once

#include "tensor/graph/op.h"

namespace lithe {

// elementwise_cuda.cu
void binary_cuda(const KernelArgs& args);
void scale_cuda(const KernelArgs& args);
void fill_cuda(const KernelArgs& args);
void cast_cuda(const KernelArgs& args);
void broadcast_to_cuda(const KernelArgs& args);

// activation_cuda.cu
void activation_cuda(const KernelArgs& args);
void activation_grad_cuda(const KernelArgs& args);

// layout_cuda.cu
void reshape_cuda(const KernelArgs& args);
void transpose_cuda(const KernelArgs& args);
void slice_cuda(const KernelArgs& args);
void slice_grad_cuda(const KernelArgs& args);
void concat_cuda(const KernelArgs& args);

// reduce_cuda.cu
void reduce_cuda(const KernelArgs& args);
void reduce_max_grad_cuda(const KernelArgs& args);

// matmul_cuda.cu; use the workspace they are given, and work without.
void matmul_cuda(const KernelArgs& args);
void linear_cuda(const KernelArgs& args);
void bias_grad_cuda(const KernelArgs& args);

// norm_cuda.cu; the gradients of parameters are faster with a workspace.
void layer_norm_cuda(const KernelArgs& args);
void layer_norm_dx_cuda(const KernelArgs& args);
void layer_norm_dgamma_cuda(const KernelArgs& args);
void rms_norm_cuda(const KernelArgs& args);
void rms_norm_dx_cuda(const KernelArgs& args);
void rms_norm_dgamma_cuda(const KernelArgs& args);

// softmax_cuda.cu
void softmax_cuda(const KernelArgs& args);
void softmax_grad_cuda(const KernelArgs& args);

// lookup_cuda.cu
void dropout_cuda(const KernelArgs& args);
void embedding_cuda(const KernelArgs& args);
void embedding_grad_cuda(const KernelArgs& args);

// loss_cuda.cu
void cross_entropy_cuda(const KernelArgs& args);
void cross_entropy_grad_cuda(const KernelArgs& args);
void mse_cuda(const KernelArgs& args);
void mse_grad_cuda(const KernelArgs& args);
void count_correct_cuda(const KernelArgs& args);

// update_cuda.cu
void adamw_cuda(const KernelArgs& args);
void sgd_cuda(const KernelArgs& args);
void accumulate_cuda(const KernelArgs& args);
void clear_cuda(const KernelArgs& args);
void sum_squares_cuda(const KernelArgs& args);
void clip_factor_cuda(const KernelArgs& args);

}  // namespace lithe
