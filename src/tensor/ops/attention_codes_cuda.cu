// Attention with codes of its operands, and its backward pass from them: the forward kernel on
// warpgroups codes what lies in shared memory, the backward kernels of fp32 decode on the way
// there; for others it is done apart. (Decoding on the way in 16 bits was slower: each tile is
// decoded as often as it is read, and conversions cost more there than the memory's traffic.)
#include "tensor/ops/attention_coded_rows_cuda.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/attention_codes_workspace.h"
#include "tensor/ops/attention_warpgroup_forward_cuda.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace attention_cuda_kernels;

template <typename T>
void forward_with_codes(const KernelArgs& args, const AttentionCodesAttrs& attrs) {
  CodingForwardParams<T> params{
      warpgroup_forward_params<T>(args, geometry_of(args, attrs.attention, 3, 4))};
  for (size_t i = 0; i < 3; ++i) {
    const size_t first = kAttentionCodes + 2 * i;
    const device::CodeTo to = device::code_to(attrs.code, args.out.subspan(first, 2));
    params.codes[i] = to.codes;
    params.scales[i] = static_cast<T*>(to.scales);
    params.group_bits = to.group_bits;
  }
  launch_warpgroup_forward<T, true>(args, params);
}

void encode_apart(const KernelArgs& args, const AttentionCodesAttrs& attrs) {
  const Attrs attention = attrs.attention;
  KernelArgs call = args;
  call.out = args.out.first(kAttentionCodes);
  call.attrs = &attention;
  attention_cuda(call);
  const Attrs encoding = attrs.code.quantize();
  std::array<KernelArgs, 3> calls;
  for (size_t i = 0; i < 3; ++i) {
    calls[i] = args;
    calls[i].in = args.in.subspan(i, 1);
    calls[i].out = args.out.subspan(kAttentionCodes + 2 * i, 2);
    calls[i].attrs = &encoding;
  }
  quantize_encode_group_cuda(calls);
}

void decode_ahead(const KernelArgs& args, const SavedCode& code) {
  const DecodedAttention decoded(args);
  const Attrs attrs = code.quantize();
  std::array<std::array<TensorRef, 2>, 3> parts;
  std::array<KernelArgs, 3> calls;
  for (size_t i = 0; i < 3; ++i) {
    parts[i] = {args.in[i], args.in[8 + i]};
    calls[i] = args;
    calls[i].in = parts[i];
    calls[i].out = {&decoded.in[i], 1};
    calls[i].attrs = &attrs;
  }
  quantize_decode_group_cuda(calls);
  attention_grad_cuda(decoded.call);
}

}  // namespace

void attention_codes_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<AttentionCodesAttrs>();
  const Shape& q = args.in[0].shape;
  const DType dtype = args.in[0].dtype;
  // Without queries there may be keys to code.
  if (q.numel() == 0 || !is_attended_in_codes(attrs.code, dtype, q, attrs.attention.scale)) {
    encode_apart(args, attrs);
  } else if (dtype == DType::bf16) {
    forward_with_codes<bf16>(args, attrs);
  } else {
    forward_with_codes<f16>(args, attrs);
  }
}

void attention_codes_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<AttentionCodesGradAttrs>();
  const Shape& q = args.in[0].shape;
  const DType dtype = args.in[5].dtype;
  if (!is_differentiated_in_codes(attrs.code, dtype, q, attrs.grad.forward.scale)) {
    decode_ahead(args, attrs.code);
    return;
  }
  const Attrs grad = attrs.grad;
  KernelArgs call = args;
  call.attrs = &grad;
  if (q.numel() == 0 || args.in[1].numel() == 0) {
    attention_grad_cuda(call);  // clears the outputs
    return;
  }
  const Geometry geometry = geometry_of(call, attrs.grad.forward, 6, 7);
  const auto rows = [&](size_t i) {
    return CodedRows{device::code_from(attrs.code, args.in[i], args.in[8 + i])};
  };
  backward_single(call, geometry, args.numerics.tf32, rows(0), rows(1), rows(2));
}

}  // namespace lithe
