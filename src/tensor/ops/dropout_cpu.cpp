#include <algorithm>
#include <array>

#include "tensor/core/tensor.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/random_words.h"

namespace lithe {

namespace {

// Rows of `width` elements, each with blocks of random lanes of its own.
template <typename Lane>
void drop_rows(const KernelArgs& args, int64_t rows, int64_t width) {
  constexpr int kBits = 8 * static_cast<int>(sizeof(Lane));
  constexpr int64_t kGroup = kBlocksAtOnce * kLanesOfBlock<kBits>;
  const auto attrs = args.attr<DropoutAttrs>();
  const auto seed = static_cast<uint64_t>(args.in[1].as<int64_t>()[0]);
  const auto step = static_cast<uint64_t>(args.in[1].as<int64_t>()[1]);
  const uint64_t stream = mix(attrs.key, step);
  const uint32_t threshold = dropout_threshold(attrs.p, kBits);
  const int64_t row_blocks = (width + kLanesOfBlock<kBits> - 1) / kLanesOfBlock<kBits>;
  const int64_t row_groups = (width + kGroup - 1) / kGroup;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const A scale = static_cast<A>(dropout_scale(attrs.p, kBits));
    parallel_for(rows * row_groups, kGroup, [=](int64_t begin, int64_t end) {
      alignas(64) std::array<Lane, kGroup> lanes;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / row_groups;
        const int64_t group = i % row_groups;
        const int64_t block = row * row_blocks + group * kBlocksAtOnce;
        random_lanes(seed, stream, static_cast<uint64_t>(block), lanes.data());
        const int64_t at = row * width + group * kGroup;
        const int64_t count = std::min(kGroup, width - group * kGroup);
        const Lane* lane = lanes.data();
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) {
          const A kept = static_cast<A>(x[at + j]) * scale;
          y[at + j] = T(lane[j] >= threshold ? kept : A(0));
        }
      }
    });
  });
}

}  // namespace

void dropout_cpu(const KernelArgs& args) {
  const Shape& shape = args.out[0].shape;
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  if (args.attr<DropoutAttrs>().bits == kAttentionDropoutBits) {
    const int64_t width = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
    drop_rows<uint8_t>(args, n / width, width);
  } else {
    drop_rows<uint16_t>(args, 1, n);
  }
}

}  // namespace lithe
