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
// activation_codes_cuda.cu, activation_codes_grad_cuda.cu
void activation_codes_cuda(const KernelArgs& args);
void activation_codes_grad_cuda(const KernelArgs& args);

// linear_activation_cuda.cu
void linear_activation_codes_cuda(const KernelArgs& args);
void matmul_activation_codes_grad_cuda(const KernelArgs& args);
void prepare_linear_activation_codes_cuda(const KernelArgs& args);
void prepare_matmul_activation_codes_grad_cuda(const KernelArgs& args);

// layout_cuda.cu
void reshape_cuda(const KernelArgs& args);
void transpose_cuda(const KernelArgs& args);
void slice_cuda(const KernelArgs& args);
void slice_grad_cuda(const KernelArgs& args);
void concat_cuda(const KernelArgs& args);

// reduce_cuda.cu
void reduce_cuda(const KernelArgs& args);
void reduce_max_grad_cuda(const KernelArgs& args);

// matmul_cuda.cu, linear_dw_cuda.cu; use the workspace they are given, and work without. The
// prepare_* choose the library's algorithms by measuring them (blas_cuda.h).
void matmul_cuda(const KernelArgs& args);
void linear_cuda(const KernelArgs& args);
void linear_stack_cuda(const KernelArgs& args);
void bias_grad_cuda(const KernelArgs& args);
void linear_dw_cuda(const KernelArgs& args);
void linear_stack_dw_cuda(const KernelArgs& args);
void prepare_matmul_cuda(const KernelArgs& args);
void prepare_linear_cuda(const KernelArgs& args);
void prepare_linear_stack_cuda(const KernelArgs& args);
void prepare_linear_dw_cuda(const KernelArgs& args);
void prepare_linear_stack_dw_cuda(const KernelArgs& args);

// linear_packed_cuda.cu; as those
void linear_packed_dx_cuda(const KernelArgs& args);
void linear_packed_dw_cuda(const KernelArgs& args);
void prepare_linear_packed_dx_cuda(const KernelArgs& args);
void prepare_linear_packed_dw_cuda(const KernelArgs& args);

// norm_cuda.cu; the gradients of parameters are faster with a workspace.
void layer_norm_cuda(const KernelArgs& args);
void layer_norm_dx_cuda(const KernelArgs& args);
void layer_norm_dgamma_cuda(const KernelArgs& args);
void rms_norm_cuda(const KernelArgs& args);
void rms_norm_dx_cuda(const KernelArgs& args);
void rms_norm_dgamma_cuda(const KernelArgs& args);

// residual_norm_cuda.cu, residual_norm_grad_cuda.cu, residual_norm_codes_cuda.cu
void residual_norm_cuda(const KernelArgs& args);
void residual_norm_grad_cuda(const KernelArgs& args);
void residual_norm_codes_cuda(const KernelArgs& args);
void residual_norm_codes_grad_cuda(const KernelArgs& args);

// softmax_cuda.cu
void softmax_cuda(const KernelArgs& args);
void softmax_grad_cuda(const KernelArgs& args);

// group_norm_cuda.cu
void group_norm_cuda(const KernelArgs& args);
void group_norm_dx_cuda(const KernelArgs& args);
void group_norm_dgamma_cuda(const KernelArgs& args);

// conv_cuda.cu
void conv2d_cuda(const KernelArgs& args);
void conv2d_dx_cuda(const KernelArgs& args);
void conv2d_dw_cuda(const KernelArgs& args);

// pool_cuda.cu
void avg_pool2d_cuda(const KernelArgs& args);
void avg_pool2d_grad_cuda(const KernelArgs& args);
void max_pool2d_cuda(const KernelArgs& args);
void max_pool2d_grad_cuda(const KernelArgs& args);

// resample_cuda.cu
void upsample_nearest_cuda(const KernelArgs& args);
void upsample_nearest_grad_cuda(const KernelArgs& args);
void pixel_unshuffle_cuda(const KernelArgs& args);
void pixel_shuffle_cuda(const KernelArgs& args);

// select_largest_cuda.cu, top_k_cuda.cu
void select_largest_cuda(const KernelArgs& args);
void top_k_cuda(const KernelArgs& args);
void top_k_grad_cuda(const KernelArgs& args);

// normalized_rows_cuda.cu
void normalize_rows_cuda(const KernelArgs& args);
void spread_rows_cuda(const KernelArgs& args);

// attention_cuda.cu, attention_grad_cuda.cu
void attention_cuda(const KernelArgs& args);
void attention_grad_cuda(const KernelArgs& args);
// attention_codes_cuda.cu
void attention_codes_grad_cuda(const KernelArgs& args);

// offload_cuda.cu
void offload_store_cuda(const KernelArgs& args);
void offload_load_cuda(const KernelArgs& args);
void offload_wait_cuda(const KernelArgs& args);

// dropout_cuda.cu, dropout_mask_cuda.cu, embedding_cuda.cu, embedding_grad_cuda.cu
void dropout_cuda(const KernelArgs& args);
void dropout_mask_cuda(const KernelArgs& args);
void dropout_apply_cuda(const KernelArgs& args);
void embedding_cuda(const KernelArgs& args);
void embedding_grad_cuda(const KernelArgs& args);
void embedding_grad_rows_cuda(const KernelArgs& args);

// fixed_point_cuda.cu, quantize_cuda.cu; alike neighbours of a group are one launch
void fixed_point_encode_cuda(const KernelArgs& args);
void fixed_point_decode_cuda(const KernelArgs& args);
void quantize_encode_cuda(const KernelArgs& args);
void quantize_encode_group_cuda(std::span<const KernelArgs> calls);
void quantize_decode_cuda(const KernelArgs& args);
void quantize_decode_group_cuda(std::span<const KernelArgs> calls);

// loss_cuda.cu
void cross_entropy_cuda(const KernelArgs& args);
void cross_entropy_grad_cuda(const KernelArgs& args);
void mse_cuda(const KernelArgs& args);
void mse_grad_cuda(const KernelArgs& args);
void count_correct_cuda(const KernelArgs& args);

// adamw_cuda.cu, sgd_cuda.cu, gradient_norm_cuda.cu, update_cuda.cu; a group is as many launches as
// it has kinds of tensors
void adamw_cuda(const KernelArgs& args);
void adamw_group_cuda(std::span<const KernelArgs> calls);
void sgd_cuda(const KernelArgs& args);
void sgd_group_cuda(std::span<const KernelArgs> calls);
void accumulate_cuda(const KernelArgs& args);
void accumulate_group_cuda(std::span<const KernelArgs> calls);
void assign_cuda(const KernelArgs& args);
void assign_group_cuda(std::span<const KernelArgs> calls);
void clear_cuda(const KernelArgs& args);
void sum_squares_cuda(const KernelArgs& args);
void sum_squares_group_cuda(std::span<const KernelArgs> calls);
void clip_factor_cuda(const KernelArgs& args);

}  // namespace lithe
