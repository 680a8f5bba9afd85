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
  const Attrs grad = ActivationAttrs{attrs.grad.kind};
  const TensorRef& dy = args.in[0];
  const bool scaled = attrs.code.kind == SavedCode::Kind::quantized;
  // A range is whole groups, a row each, so that threads share it.
  SavedCode code = attrs.code;
  if (scaled) {
    code.group = static_cast<int32_t>(QuantizeLayout(dy.shape, code.quantize()).group);
  }
  auto* decoded =
      static_cast<std::byte*>(args.workspace) + column_sum_bytes(attrs, dy.shape, dy.dtype);
  for (int64_t first = 0; first < dy.numel(); first += kDecodedAtOnce) {
    const int64_t count = std::min(dy.numel() - first, kDecodedAtOnce);
    const Shape shape = scaled ? Shape{count / code.group, code.group} : Shape{count};
    // Elements from `at` on.
    const auto range = [](const TensorRef& of, int64_t at, const Shape& as) {
      return TensorRef{of.as<std::byte>() + at * dtype_bits(of.dtype) / 8, of.dtype, as};
    };
    std::array<TensorRef, 2> parts = {range(args.in[1], first, shape)};
    if (scaled) {
      parts[1] = range(args.in[2], first / code.group, {count / code.group, 1});
    }
    const std::array<TensorRef, 2> in = {range(dy, first, shape), {decoded, dy.dtype, shape}};
    const TensorRef dx = range(args.out[0], first, shape);
    decode_saved_cpu(args, code, std::span(parts).first(static_cast<size_t>(code.parts())), in[1]);
    activation_grad_cpu({.op = args.op, .in = in, .out = {&dx, 1}, .attrs = &grad});
  }
  if (attrs.grad.column_sum) {
    sum_rows(args, args.out[0], args.out[1]);
  }
}

}  // namespace lithe
