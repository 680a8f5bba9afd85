#include "tensor/ops/op_table.h"

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
#include "tensor/ops/quantize.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/top_k.h"
#include "tensor/ops/update.h"

namespace lithe {

// One line a family, in the order of the headers; `op_registry` refuses an op that no case
// exercises.
std::span<const OpDef* const> op_table() {
  static constexpr const OpDef* kOps[] = {
      // pointwise
      &add_op,
      &sub_op,
      &mul_op,
      &div_op,
      &scale_op,
      &fill_op,
      &cast_op,
      // activation
      &gelu_op,
      &gelu_tanh_op,
      &quick_gelu_op,
      &silu_op,
      &relu_op,
      &tanh_op,
      &sigmoid_op,
      &activation_grad_op,
      &activation_codes_op,
      &activation_codes_grad_op,
      &linear_activation_codes_op,
      &matmul_activation_codes_grad_op,
      // reductions
      &reduce_sum_op,
      &reduce_mean_op,
      &reduce_max_op,
      &reduce_max_grad_op,
      &broadcast_to_op,
      // layout
      &reshape_op,
      &transpose_op,
      &slice_op,
      &slice_grad_op,
      &concat_op,
      // products
      &matmul_op,
      &linear_op,
      &linear_stack_op,
      &bias_grad_op,
      &linear_dw_op,
      &linear_stack_dw_op,
      &linear_packed_dx_op,
      &linear_packed_dw_op,
      // softmax and attention
      &softmax_op,
      &softmax_grad_op,
      &attention_op,
      &attention_grad_op,
      &attention_codes_grad_op,
      // normalisation
      &layer_norm_op,
      &layer_norm_dx_op,
      &layer_norm_dgamma_op,
      &rms_norm_op,
      &rms_norm_dx_op,
      &rms_norm_dgamma_op,
      &group_norm_op,
      &group_norm_dx_op,
      &group_norm_dgamma_op,
      &residual_norm_op,
      &residual_norm_grad_op,
      &residual_norm_codes_op,
      &residual_norm_codes_grad_op,
      &normalize_rows_op,
      &spread_rows_op,
      // lookup and dropout
      &embedding_op,
      &embedding_grad_op,
      &embedding_grad_rows_op,
      &dropout_op,
      &dropout_mask_op,
      &dropout_apply_op,
      // host memory
      &offload_store_op,
      &offload_load_op,
      &offload_wait_op,
      // losses
      &cross_entropy_op,
      &cross_entropy_grad_op,
      &mse_op,
      &mse_grad_op,
      &count_correct_op,
      // images
      &conv2d_op,
      &conv2d_dx_op,
      &conv2d_dw_op,
      &avg_pool2d_op,
      &avg_pool2d_grad_op,
      &max_pool2d_op,
      &max_pool2d_grad_op,
      &upsample_nearest_op,
      &upsample_nearest_grad_op,
      &pixel_unshuffle_op,
      &pixel_shuffle_op,
      // selection
      &top_k_op,
      &top_k_grad_op,
      &select_largest_op,
      // codes
      &fixed_point_encode_op,
      &fixed_point_decode_op,
      &quantize_encode_op,
      &quantize_decode_op,
      // updates
      &adamw_op,
      &sgd_op,
      &accumulate_op,
      &assign_op,
      &clear_op,
      &sum_squares_op,
      &clip_factor_op,
  };
  return kOps;
}

const OpDef* find_op(std::string_view name) {
  const auto table = op_table();
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const OpDef* op) { return op->name == name; });
  return it == table.end() ? nullptr : *it;
}

DeviceKernel cpu_kernel(const OpDef& op) { return {op.cpu}; }

KernelLookup kernel_lookup(DeviceKind device) {
  return device == DeviceKind::cuda ? cuda_kernel : cpu_kernel;
}

}  // namespace lithe
