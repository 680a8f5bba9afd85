#include <algorithm>

#include "tensor/core/tensor.h"
#include "tensor/ops/dropout_mask.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

constexpr int64_t kEight = 8;  // elements of a packed byte

template <int kBits>
void draw(const KernelArgs& args, const DropoutMaskAttrs& attrs) {
  const int64_t n = attrs.rows * attrs.width;
  const int64_t* rng = args.in[0].as<int64_t>();
  uint8_t* mask = args.out[0].as<uint8_t>();
  parallel_for((n + kEight - 1) / kEight, 8 * kEight, [=](int64_t begin, int64_t end) {
    KeptElements<kBits> kept(rng, attrs);
    for (int64_t byte = begin; byte < end; ++byte) {
      uint8_t bits = 0;
      for (int64_t i = byte * kEight; i < std::min(n, (byte + 1) * kEight); ++i) {
        const uint8_t keep = kept(i) ? 1 : 0;
        if (attrs.packed) {
          bits = static_cast<uint8_t>(bits | keep << (i % kEight));
        } else {
          mask[i] = keep;
        }
      }
      if (attrs.packed) {
        mask[byte] = bits;
      }
    }
  });
}

}  // namespace

void dropout_mask_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<DropoutMaskAttrs>();
  attrs.dropout.bits == 8 ? draw<8>(args, attrs) : draw<16>(args, attrs);
}

void dropout_apply_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<DropoutMaskAttrs>();
  const uint8_t* mask = args.in[1].as<uint8_t>();
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const A scale = static_cast<A>(dropout_scale(attrs.dropout.p, attrs.dropout.bits));
    parallel_for(args.out[0].numel(), 1, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int keep = attrs.packed ? mask[i / kEight] >> (i % kEight) & 1 : mask[i];
        const A kept = static_cast<A>(x[i]) * scale;
        y[i] = T(keep != 0 ? kept : A(0));
      }
    });
  });
}

}  // namespace lithe
