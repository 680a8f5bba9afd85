// Gradients of activations from codes of what they keep.
#include "tensor/core/tensor.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/cuda_activation.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/saved_slopes_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kEight = 8;
constexpr int kUnroll = 2;
constexpr int kStep = kThreads * kEight;
constexpr int kTile = kUnroll * kStep;

template <typename Slopes, typename T = typename Slopes::T>
__global__ void __launch_bounds__(kThreads)
    activation_codes_grad_kernel(int64_t n, const Slopes slopes, const T* dy, T* dx) {
  using A = acc_t<T>;
  const int64_t first = last_block_first() * kUnroll * kStep + int64_t{threadIdx.x} * kEight;
  Eight<T> words[kUnroll];
  typename Slopes::template Loaded<kEight> code[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    if (const int64_t at = first + u * kStep; at + kEight <= n) {
      words[u] = load_eight(dy + at);
      code[u] = slopes.template load<kEight>(at);
    }
  }
  slopes.begin();  // while they arrive
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t at = first + u * kStep;
    if (at + kEight <= n) {
      A v[kEight];
      unpack_eight(words[u], v);
      slopes.template multiply<kEight>(code[u], at, v);
      store_eight(dx + at, pack_eight<T>(v));
    } else if constexpr (requires { slopes.of_element(at); }) {  // groups end with a pack
      for (int64_t i = at; i < n; ++i) {
        dx[i] = narrow<T>(widen<A>(dy[i]) * slopes.of_element(i));
      }
    }
  }
}

// The same with dx's sums by column, in the walk of column_sum (cuda_column_sum.h).
template <typename Slopes, int kVector>
struct CodesTerm {
  using T = typename Slopes::T;
  using A = acc_t<T>;
  Slopes slopes;
  const T* dy;
  T* dx;
  struct Loaded {
    Words<T, kVector> upstream;
    typename Slopes::template Loaded<kVector> code;
  };
  __device__ void begin() const { slopes.begin(); }
  __device__ Loaded load(int64_t at) const {
    return {load_or_words<kVector>(dy + at), slopes.template load<kVector>(at)};
  }
  __device__ void add(const Loaded& loaded, int64_t at, A (&sums)[1][kVector]) const {
    A v[kVector];
    if constexpr (kVector == 1) {
      v[0] = widen<A>(loaded.upstream.at[0]);
      slopes.template multiply<1>(loaded.code, at, v);
      const T out = narrow<T>(v[0]);
      sums[0][0] += widen<A>(out);
      dx[at] = out;
    } else {
      unpack<T>(loaded.upstream, v);
      slopes.template multiply<kVector>(loaded.code, at, v);
      const uint4 out = pack<T>(v);
      store_words(dx + at, out);
      unpack<T>(out, v);  // as they are stored
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[0][j] += v[j];
      }
    }
  }
};

template <typename Slopes>
void grad(const KernelArgs& args, const Slopes& slopes) {
  using T = typename Slopes::T;
  const T* dy = args.in[0].as<T>();
  T* dx = args.out[0].as<T>();
  const Shape& shape = args.in[0].shape;
  if (args.attr<ActivationCodesGradAttrs>().grad.column_sum) {
    const auto term = [&]<int kVector>() { return CodesTerm<Slopes, kVector>{slopes, dy, dx}; };
    column_sum<1, T>(args, shape.product(0, shape.rank() - 1), shape.back(), term,
                     args.out[1].as<T>(), static_cast<T*>(nullptr));
    return;
  }
  if (const int64_t n = shape.numel(); n > 0) {
    activation_codes_grad_kernel<Slopes>
        <<<blocks_for(n, kTile), kThreads, 0, stream_of(args)>>>(n, slopes, dy, dx);
    check_launch(args.op);
  }
}

}  // namespace

void activation_codes_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesGradAttrs>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    with_slopes<T>(attrs, args.in.subspan(1), [&](const auto& slopes) { grad(args, slopes); });
  });
}

}  // namespace lithe
