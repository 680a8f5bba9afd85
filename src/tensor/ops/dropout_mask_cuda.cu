// Stored masks of dropout: eight elements a thread, a byte of a packed mask.
#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/dropout_mask.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kEight = 8;

template <int kBits>
__global__ void __launch_bounds__(kThreads)
    mask_kernel(int64_t n, const int64_t* rng, DropoutMaskAttrs attrs, uint8_t* mask) {
  const int64_t byte = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = byte * kEight;
  if (first >= n) {
    return;
  }
  Pack<uint8_t, kEight> keeps;
  unsigned bits = 0;
  const auto set = [&](int j, bool keep) {
    keeps.at[j] = keep ? 1 : 0;
    bits |= (keep ? 1u : 0u) << j;
  };
  if constexpr (kBits == 16) {
    static_assert(kDropoutLanes == kEight);  // one random block
    const PhiloxBlock block = dropout_block(static_cast<uint64_t>(rng[0]),
                                            mix(attrs.dropout.key, static_cast<uint64_t>(rng[1])),
                                            static_cast<uint64_t>(byte));
    const uint32_t threshold = dropout_threshold(attrs.dropout.p, kBits);
#pragma unroll
    for (int j = 0; j < kEight; ++j) {
      set(j, first + j < n && dropout_lane<kBits>(block, j) >= threshold);
    }
  } else {
    KeptElements<kBits> kept(rng, attrs);
#pragma unroll
    for (int j = 0; j < kEight; ++j) {
      set(j, first + j < n && kept(first + j));
    }
  }
  if (attrs.packed) {
    mask[byte] = static_cast<uint8_t>(bits);
  } else if (first + kEight <= n) {
    store(mask + first, keeps);
  } else {
    for (int j = 0; first + j < n; ++j) {
      mask[first + j] = keeps.at[j];
    }
  }
}

template <bool kPacked, typename T>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(int64_t n, acc_t<T> scale, const T* x, const uint8_t* mask, T* y) {
  using A = acc_t<T>;
  const int64_t byte = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = byte * kEight;
  if (first >= n) {
    return;
  }
  const auto dropped = [&](T value, bool keep) {
    return narrow<T>(keep ? widen<A>(value) * scale : A(0));
  };
  if (first + kEight <= n) {
    Pack<T, kEight> values = load<kEight>(x + first);
    Pack<uint8_t, kEight> keeps;
    unsigned bits = 0;
    if constexpr (kPacked) {
      bits = mask[byte];
    } else {
      keeps = load<kEight>(mask + first);
    }
#pragma unroll
    for (int j = 0; j < kEight; ++j) {
      const bool keep = kPacked ? (bits >> j & 1u) != 0 : keeps.at[j] != 0;
      values.at[j] = dropped(values.at[j], keep);
    }
    store(y + first, values);
    return;
  }
  for (int64_t i = first; i < n; ++i) {
    const bool keep = kPacked ? (mask[byte] >> (i - first) & 1) != 0 : mask[i] != 0;
    y[i] = dropped(x[i], keep);
  }
}

}  // namespace

void dropout_mask_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<DropoutMaskAttrs>();
  const int64_t n = attrs.rows * attrs.width;
  if (n == 0) {
    return;
  }
  const unsigned blocks = blocks_for(n, kThreads * kEight);
  const int64_t* rng = args.in[0].as<int64_t>();
  uint8_t* mask = args.out[0].as<uint8_t>();
  if (attrs.dropout.bits == 8) {
    mask_kernel<8><<<blocks, kThreads, 0, stream_of(args)>>>(n, rng, attrs, mask);
  } else {
    mask_kernel<16><<<blocks, kThreads, 0, stream_of(args)>>>(n, rng, attrs, mask);
  }
  check_launch(args.op);
}

void dropout_apply_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<DropoutMaskAttrs>();
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const auto scale = static_cast<acc_t<T>>(dropout_scale(attrs.dropout.p, attrs.dropout.bits));
    const auto launch = [&]<bool kPacked>() {
      apply_kernel<kPacked, T><<<blocks_for(n, kThreads * kEight), kThreads, 0, stream_of(args)>>>(
          n, scale, args.in[0].as<T>(), args.in[1].as<uint8_t>(), args.out[0].as<T>());
    };
    attrs.packed ? launch.template operator()<true>() : launch.template operator()<false>();
    check_launch(args.op);
  });
}

}  // namespace lithe
