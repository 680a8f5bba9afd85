// Which op runs on which CUDA kernel; an op that is not here has none yet.
#include "tensor/ops/kernels_cuda.h"

#include <algorithm>

#include "tensor/ops/activation_codes.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/dropout_mask.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/fixed_point.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/linear_activation.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/normalized_rows.h"
#include "tensor/ops/offload.h"
#include "tensor/ops/op_table.h"
#include "tensor/ops/quantize.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/top_k.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

struct Entry {
  const OpDef* op;
  Kernel run;
  GroupKernel run_group = nullptr;
  Kernel prepare = nullptr;
};

constexpr Entry kKernels[] = {
    // pointwise
    {&add_op, binary_cuda},
    {&sub_op, binary_cuda},
    {&mul_op, binary_cuda},
    {&div_op, binary_cuda},
    {&scale_op, scale_cuda},
    {&fill_op, fill_cuda},
    {&cast_op, cast_cuda},
    // activation
    {&gelu_op, activation_cuda},
    {&gelu_tanh_op, activation_cuda},
    {&quick_gelu_op, activation_cuda},
    {&silu_op, activation_cuda},
    {&relu_op, activation_cuda},
    {&tanh_op, activation_cuda},
    {&sigmoid_op, activation_cuda},
    {&activation_grad_op, activation_grad_cuda},
    {&activation_codes_op, activation_codes_cuda},
    {&activation_codes_grad_op, activation_codes_grad_cuda},
    {&linear_activation_codes_op, linear_activation_codes_cuda, nullptr,
     prepare_linear_activation_codes_cuda},
    {&matmul_activation_codes_grad_op, matmul_activation_codes_grad_cuda, nullptr,
     prepare_matmul_activation_codes_grad_cuda},
    // layout
    {&reshape_op, reshape_cuda},
    {&transpose_op, transpose_cuda},
    {&slice_op, slice_cuda},
    {&slice_grad_op, slice_grad_cuda},
    {&concat_op, concat_cuda},
    // reductions
    {&reduce_sum_op, reduce_cuda},
    {&reduce_mean_op, reduce_cuda},
    {&reduce_max_op, reduce_cuda},
    {&reduce_max_grad_op, reduce_max_grad_cuda},
    {&broadcast_to_op, broadcast_to_cuda},
    // products
    {&matmul_op, matmul_cuda, nullptr, prepare_matmul_cuda},
    {&linear_op, linear_cuda, nullptr, prepare_linear_cuda},
    {&linear_stack_op, linear_stack_cuda, nullptr, prepare_linear_stack_cuda},
    {&bias_grad_op, bias_grad_cuda},
    {&linear_dw_op, linear_dw_cuda, nullptr, prepare_linear_dw_cuda},
    {&linear_stack_dw_op, linear_stack_dw_cuda, nullptr, prepare_linear_stack_dw_cuda},
    {&linear_packed_dx_op, linear_packed_dx_cuda, nullptr, prepare_linear_packed_dx_cuda},
    {&linear_packed_dw_op, linear_packed_dw_cuda, nullptr, prepare_linear_packed_dw_cuda},
    // softmax and normalisation
    {&softmax_op, softmax_cuda},
    {&softmax_grad_op, softmax_grad_cuda},
    {&layer_norm_op, layer_norm_cuda},
    {&layer_norm_dx_op, layer_norm_dx_cuda},
    {&layer_norm_dgamma_op, layer_norm_dgamma_cuda},
    {&rms_norm_op, rms_norm_cuda},
    {&rms_norm_dx_op, rms_norm_dx_cuda},
    {&rms_norm_dgamma_op, rms_norm_dgamma_cuda},
    {&group_norm_op, group_norm_cuda},
    {&group_norm_dx_op, group_norm_dx_cuda},
    {&group_norm_dgamma_op, group_norm_dgamma_cuda},
    {&residual_norm_op, residual_norm_cuda},
    {&residual_norm_grad_op, residual_norm_grad_cuda},
    {&residual_norm_codes_op, residual_norm_codes_cuda},
    {&residual_norm_codes_grad_op, residual_norm_codes_grad_cuda},
    {&normalize_rows_op, normalize_rows_cuda},
    {&spread_rows_op, spread_rows_cuda},
    // images
    {&conv2d_op, conv2d_cuda},
    {&conv2d_dx_op, conv2d_dx_cuda},
    {&conv2d_dw_op, conv2d_dw_cuda},
    {&avg_pool2d_op, avg_pool2d_cuda},
    {&avg_pool2d_grad_op, avg_pool2d_grad_cuda},
    {&max_pool2d_op, max_pool2d_cuda},
    {&max_pool2d_grad_op, max_pool2d_grad_cuda},
    {&upsample_nearest_op, upsample_nearest_cuda},
    {&upsample_nearest_grad_op, upsample_nearest_grad_cuda},
    {&pixel_unshuffle_op, pixel_unshuffle_cuda},
    {&pixel_shuffle_op, pixel_shuffle_cuda},
    // selection
    {&top_k_op, top_k_cuda},
    {&top_k_grad_op, top_k_grad_cuda},
    {&select_largest_op, select_largest_cuda},
    // codes
    {&fixed_point_encode_op, fixed_point_encode_cuda},
    {&fixed_point_decode_op, fixed_point_decode_cuda},
    {&quantize_encode_op, quantize_encode_cuda, quantize_encode_group_cuda},
    {&quantize_decode_op, quantize_decode_cuda, quantize_decode_group_cuda},
    // attention
    {&attention_op, attention_cuda},
    {&attention_grad_op, attention_grad_cuda},
    {&attention_codes_grad_op, attention_codes_grad_cuda},
    // lookup and dropout
    {&embedding_op, embedding_cuda},
    {&embedding_grad_op, embedding_grad_cuda},
    {&embedding_grad_rows_op, embedding_grad_rows_cuda},
    {&dropout_op, dropout_cuda},
    {&dropout_mask_op, dropout_mask_cuda},
    {&dropout_apply_op, dropout_apply_cuda},
    // host memory
    {&offload_store_op, offload_store_cuda},
    {&offload_load_op, offload_load_cuda},
    {&offload_wait_op, offload_wait_cuda},
    // losses
    {&cross_entropy_op, cross_entropy_cuda},
    {&cross_entropy_grad_op, cross_entropy_grad_cuda},
    {&mse_op, mse_cuda},
    {&mse_grad_op, mse_grad_cuda},
    {&count_correct_op, count_correct_cuda},
    // updates
    {&adamw_op, adamw_cuda, adamw_group_cuda},
    {&sgd_op, sgd_cuda, sgd_group_cuda},
    {&accumulate_op, accumulate_cuda, accumulate_group_cuda},
    {&assign_op, assign_cuda, assign_group_cuda},
    {&clear_op, clear_cuda},
    {&sum_squares_op, sum_squares_cuda, sum_squares_group_cuda},
    {&clip_factor_op, clip_factor_cuda},
};

}  // namespace

DeviceKernel cuda_kernel(const OpDef& op) {
  const auto* entry = std::find_if(std::begin(kKernels), std::end(kKernels),
                                   [&](const Entry& e) { return e.op == &op; });
  return entry == std::end(kKernels) ? DeviceKernel{}
                                     : DeviceKernel{entry->run, entry->run_group, entry->prepare};
}

}  // namespace lithe
