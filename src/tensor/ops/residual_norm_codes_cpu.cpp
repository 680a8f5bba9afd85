#include <array>

#include "tensor/core/tensor.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/residual_norm_shapes.h"

namespace lithe {

void residual_norm_codes_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormCodesAttrs>();
  const TensorRef& y = args.in[0];
  const TensorRef sum = attrs.sum ? args.out[5] : TensorRef{args.workspace, y.dtype, y.shape};
  const std::array<TensorRef, 4> out = {args.out[0], sum, args.out[1], args.out[2]};
  const Attrs norm = attrs.norm;
  residual_norm_cpu({.op = args.op, .in = args.in, .out = out, .attrs = &norm});
  encode_saved_cpu(args, attrs.code, sum, args.out.subspan(3, 2));
}

void residual_norm_codes_grad_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormCodesGradAttrs>();
  const TensorRef& dnormed = args.in[0];
  const int64_t sums =
      residual_norm_grad_workspace(attrs.grad, dnormed.shape, dnormed.dtype, DeviceKind::cpu);
  const TensorRef x = {static_cast<std::byte*>(args.workspace) + sums, dnormed.dtype,
                       dnormed.shape};
  const std::array<TensorRef, 2> parts = {args.in[1], args.in[7]};
  decode_saved_cpu(args, attrs.code, parts, x);
  std::array<TensorRef, 7> in;
  std::copy_n(args.in.begin(), in.size(), in.begin());
  in[1] = x;
  const Attrs grad = attrs.grad;
  KernelArgs call = args;
  call.in = in;
  call.attrs = &grad;
  call.workspace_bytes = sums;
  residual_norm_grad_cpu(call);
}

}  // namespace lithe
