#include <algorithm>
#include <array>

#include "tensor/core/tensor.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/random_words.h"

namespace lithe {

void dropout_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<DropoutAttrs>();
  const auto seed = static_cast<uint64_t>(args.in[1].as<int64_t>()[0]);
  const auto step = static_cast<uint64_t>(args.in[1].as<int64_t>()[1]);
  const uint64_t stream = mix(attrs.key, step);
  const uint32_t threshold = dropout_threshold(attrs.p);
  const int64_t n = args.out[0].numel();
  const int64_t groups = (n + kLanesAtOnce - 1) / kLanesAtOnce;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const A scale = static_cast<A>(dropout_scale(attrs.p));
    parallel_for(groups, kLanesAtOnce, [=](int64_t begin, int64_t end) {
      alignas(64) std::array<uint16_t, kLanesAtOnce> lanes;
      for (int64_t g = begin; g < end; ++g) {
        random_lanes(seed, stream, static_cast<uint64_t>(g * kBlocksAtOnce), lanes.data());
        const int64_t at = g * kLanesAtOnce;
        const int64_t count = std::min(kLanesAtOnce, n - at);
        const uint16_t* lane = lanes.data();
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
          const A kept = static_cast<A>(x[at + i]) * scale;
          y[at + i] = T(lane[i] >= threshold ? kept : A(0));
        }
      }
    });
  });
}

}  // namespace lithe
