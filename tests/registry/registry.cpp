#include "registry/registry.h"

namespace lithe::registry {

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  add_activation_cases(cases);
  add_elementwise_cases(cases);
  add_reduce_cases(cases);
  add_layout_cases(cases);
  add_matmul_cases(cases);
  add_linear_packed_cases(cases);
  add_softmax_cases(cases);
  add_attention_cases(cases);
  add_norm_cases(cases);
  add_residual_norm_cases(cases);
  add_embedding_cases(cases);
  add_loss_cases(cases);
  add_dropout_cases(cases);
  add_offload_cases(cases);
  add_conv_cases(cases);
  add_top_k_cases(cases);
  add_codec_cases(cases);
  add_fused_codec_cases(cases);
  add_linear_activation_cases(cases);
  add_attention_codes_cases(cases);
  add_update_cases(cases);
  add_update_rows_cases(cases);
  return cases;
}

}  // namespace lithe::registry
