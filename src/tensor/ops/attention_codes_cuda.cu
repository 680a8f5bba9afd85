// Attention's backward pass from codes of its operands: the kernels of fp32 decode them on the way
// to shared memory. In 16 bits that was slower than to decode ahead: a tile is decoded as often as
// it is read, and there the conversions cost more than the memory's traffic.
#include "tensor/ops/attention_coded_rows_cuda.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/attention_codes_workspace.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace attention_cuda_kernels;

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
