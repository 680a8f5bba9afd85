#include <algorithm>
#include <array>

#include "tensor/core/tensor.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/activation_codes_workspace.h"

namespace lithe {

void activation_codes_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesAttrs>();
  const auto x_parts = static_cast<size_t>(attrs.x.parts());
  // y may be written over x.
  encode_saved_cpu(args, attrs.x, args.in[0], args.out.subspan(1, x_parts));
  const Attrs plain = ActivationAttrs{attrs.kind};
  activation_cpu({.op = args.op, .in = args.in, .out = args.out.first(1), .attrs = &plain});
  encode_saved_cpu(args, attrs.y, args.out[0], args.out.subspan(1 + x_parts));
}

void activation_codes_grad_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesGradAttrs>();
  const SavedCode code = {.kind = SavedCode::Kind::fixed_point, .fixed = attrs.code};
  const Attrs grad = ActivationAttrs{attrs.grad.kind};
  const TensorRef& dy = args.in[0];
  const int64_t bits = fixed_point_grid(attrs.code).bits;
  auto* decoded =
      static_cast<std::byte*>(args.workspace) + column_sum_bytes(attrs, dy.shape, dy.dtype);
  for (int64_t first = 0; first < dy.numel(); first += kDecodedAtOnce) {
    const Shape shape = {std::min(dy.numel() - first, kDecodedAtOnce)};
    const auto range = [&](const TensorRef& of, int64_t bits_of_element) {
      return TensorRef{of.as<std::byte>() + first * bits_of_element / 8, of.dtype, shape};
    };
    const TensorRef codes = range(args.in[1], bits);
    const std::array<TensorRef, 2> in = {range(dy, dtype_bits(dy.dtype)),
                                         {decoded, dy.dtype, shape}};
    const TensorRef dx = range(args.out[0], dtype_bits(dy.dtype));
    decode_saved_cpu(args, code, {&codes, 1}, in[1]);
    activation_grad_cpu({.op = args.op, .in = in, .out = {&dx, 1}, .attrs = &grad});
  }
  if (attrs.grad.column_sum) {
    sum_rows(args, args.out[0], args.out[1]);
  }
}

}  // namespace lithe
