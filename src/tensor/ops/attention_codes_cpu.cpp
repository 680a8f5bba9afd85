#include <array>

#include "tensor/core/tensor.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/attention_codes_workspace.h"

namespace lithe {

void attention_codes_grad_cpu(const KernelArgs& args) {
  const DecodedAttention decoded(args);
  const SavedCode code = args.attr<AttentionCodesGradAttrs>().code;
  for (size_t i = 0; i < 3; ++i) {
    const std::array<TensorRef, 2> parts = {args.in[i], args.in[8 + i]};
    decode_saved_cpu(args, code, parts, decoded.in[i]);
  }
  attention_grad_cpu(decoded.call);
}

}  // namespace lithe
