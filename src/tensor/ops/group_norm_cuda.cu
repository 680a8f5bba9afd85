// Group norm on x [B, P, C]. A block that can hold a group [P, C / groups] reads it once; larger
// ones are summed by ranges of positions first (per channel, in a fixed order), then joined, then
// normalised.
#include "tensor/core/tensor.h"
#include "tensor/ops/group_norm_ranges_cuda.h"
#include "tensor/ops/group_norm_split.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/norm.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = kGroupNormThreads;

GroupNormGeometry geometry(const Shape& x, int groups) {
  return {x[0], x.product(1, x.rank() - 1), x.back(), groups, x.back() / groups};
}

// ---- one block a group

// Calls f(pack's number in the group, its first element in x, its first channel) for this thread's
// packs of the block's group, always the same ones. Index holds the number of packs.
template <int kVector, typename Index, typename F>
__device__ void for_group(const GroupNormGeometry& g, F&& f) {
  const int64_t sample = blockIdx.x / g.groups;
  const int64_t first = (blockIdx.x - sample * g.groups) * g.width;
  const auto packs = static_cast<Index>(g.width / kVector);
  const auto end = static_cast<Index>(g.positions) * packs;
  for (Index i = threadIdx.x; i < end; i += kThreads) {
    const Index position = i / packs;
    const int64_t channel = first + static_cast<int64_t>(i - position * packs) * kVector;
    f(i, (sample * g.positions + position) * g.channels + channel, channel);
  }
}

// A group's packs: read once and kept, or read again.
template <bool kKept, int kVector, typename T>
struct GroupReader {
  const T* from;
  Pack<T, kVector>* kept;

  __device__ Pack<T, kVector> first(int64_t i, int64_t at) const {
    const Pack<T, kVector> pack = load<kVector>(from + at);
    if constexpr (kKept) {
      store(reinterpret_cast<T*>(kept + i), pack);
    }
    return pack;
  }
  __device__ Pack<T, kVector> again(int64_t i, int64_t at) const {
    if constexpr (kKept) {
      return kept[i];
    } else {
      return load<kVector>(from + at);
    }
  }
};

template <bool kKept, int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    group_norm_kernel(const GroupNormGeometry g, const GroupNormForward<T> p) {
  using A = acc_t<T>;
  using Index = std::conditional_t<kKept, uint32_t, int64_t>;  // shared memory is small
  extern __shared__ __align__(16) unsigned char memory[];
  const GroupReader<kKept, kVector, T> x{p.x, reinterpret_cast<Pack<T, kVector>*>(memory)};
  A sum = 0;
  for_group<kVector, Index>(g, [&](int64_t i, int64_t at, int64_t) {
    const Pack<T, kVector> pack = x.first(i, at);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sum += widen<A>(pack.at[j]);
    }
  });
  const A mean = group_reduce<kThreads>(sum, Sum{}) * g.share<A>();
  A squares = 0;  // around the mean: the difference of two large sums would lose digits
  for_group<kVector, Index>(g, [&](int64_t i, int64_t at, int64_t) {
    const Pack<T, kVector> pack = x.again(i, at);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A d = widen<A>(pack.at[j]) - mean;
      squares += d * d;
    }
  });
  const A rstd = inverse_root(group_reduce<kThreads>(squares, Sum{}) * g.share<A>() + p.eps);
  for_group<kVector, Index>(g, [&](int64_t i, int64_t at, int64_t channel) {
    const Pack<T, kVector> pack = x.again(i, at);
    const Pack<T, kVector> gamma = load<kVector>(p.gamma + channel);
    const Pack<T, kVector> beta = load<kVector>(p.beta + channel);
    Pack<T, kVector> y;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      y.at[j] = narrow<T>((widen<A>(pack.at[j]) - mean) * (rstd * widen<A>(gamma.at[j])) +
                          widen<A>(beta.at[j]));
    }
    store(p.y + at, y);
  });
  if (threadIdx.x == 0) {
    p.mean[blockIdx.x] = mean;
    p.rstd[blockIdx.x] = rstd;
  }
}

// With u = dy * gamma and d = x - mean: dx = rstd (u - mean(u) - d rstd² mean(u d)).
template <bool kKept, int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    group_norm_dx_kernel(const GroupNormGeometry g, const GroupNormBackward<T> p) {
  using A = acc_t<T>;
  using Index = std::conditional_t<kKept, uint32_t, int64_t>;  // shared memory is small
  extern __shared__ __align__(16) unsigned char memory[];
  auto* kept = reinterpret_cast<Pack<T, kVector>*>(memory);
  const GroupReader<kKept, kVector, T> upstream{p.dy, kept};
  const GroupReader<kKept, kVector, T> input{p.x, kept + g.positions * (g.width / kVector)};
  const A mean = p.mean[blockIdx.x];
  const A rstd = p.rstd[blockIdx.x];
  A sum = 0;
  A dot = 0;
  for_group<kVector, Index>(g, [&](int64_t i, int64_t at, int64_t channel) {
    const Pack<T, kVector> dy = upstream.first(i, at);
    const Pack<T, kVector> x = input.first(i, at);
    const Pack<T, kVector> gamma = load<kVector>(p.gamma + channel);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A u = widen<A>(dy.at[j]) * widen<A>(gamma.at[j]);
      sum += u;
      dot += u * (widen<A>(x.at[j]) - mean);
    }
  });
  const A shift = group_reduce<kThreads>(sum, Sum{}) * g.share<A>();
  const A slope = group_reduce<kThreads>(dot, Sum{}) * g.share<A>() * rstd * rstd;
  for_group<kVector, Index>(g, [&](int64_t i, int64_t at, int64_t channel) {
    const Pack<T, kVector> dy = upstream.again(i, at);
    const Pack<T, kVector> x = input.again(i, at);
    const Pack<T, kVector> gamma = load<kVector>(p.gamma + channel);
    Pack<T, kVector> dx;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A u = widen<A>(dy.at[j]) * widen<A>(gamma.at[j]);
      dx.at[j] = narrow<T>(rstd * (u - shift - (widen<A>(x.at[j]) - mean) * slope));
    }
    store(p.dx + at, dx);
  });
}

// dgamma's term: dy (x - mean) rstd.
template <int kVector, typename T>
struct GammaTerm {
  const T* dy;
  const T* x;
  const acc_t<T>* mean;
  const acc_t<T>* rstd;
  GroupNormGeometry g;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[1][kVector]) const {
    using A = acc_t<T>;
    const int64_t sample = row / g.positions * g.groups;
    const Pack<T, kVector> d = load<kVector>(dy + row * g.channels + column);
    const Pack<T, kVector> v = load<kVector>(x + row * g.channels + column);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const int64_t own = sample + (column + j) / g.width;
      sums[0][j] += widen<A>(d.at[j]) * ((widen<A>(v.at[j]) - mean[own]) * rstd[own]);
    }
  }
};

// ---- launches

// Calls f.operator()<kVector>() with the widest access that rows of `size` elements allow.
template <typename T, typename F>
void dispatch_width(int64_t size, F&& f) {
  if constexpr (kWide<T> >= 8) {
    if (size % 8 == 0) {
      return f.template operator()<8>();
    }
  }
  if constexpr (kWide<T> >= 4) {
    if (size % 4 == 0) {
      return f.template operator()<4>();
    }
  }
  size % 2 == 0 ? f.template operator()<2>() : f.template operator()<1>();
}

// One block a group; `kept` bytes of shared memory, 0 where the group is read again.
template <typename KernelOf, typename Params>
void launch_groups(const KernelArgs& args, const GroupNormGeometry& g, int64_t kept,
                   KernelOf kernel, const Params& p) {
  if (kept > 0) {
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(kept)),
               args.op, "asking for shared memory");
  }
  kernel<<<blocks_for(g.batch * g.groups, 1), kThreads, static_cast<size_t>(kept),
           stream_of(args)>>>(g, p);
  check_launch(args.op);
}

template <typename T>
void forward(const KernelArgs& args, const GroupNormGeometry& g, int64_t chunks,
             const GroupNormForward<T>& p) {
  if (chunks == 0) {
    const auto bytes = static_cast<int64_t>(sizeof(T)) * g.positions * g.width;
    dispatch_width<T>(g.width, [&]<int kVector>() {
      if (bytes <= kGroupNormShared) {
        launch_groups(args, g, bytes, group_norm_kernel<true, kVector, T>, p);
      } else {
        launch_groups(args, g, 0, group_norm_kernel<false, kVector, T>, p);
      }
    });
  } else {
    group_norm_ranges(args, g, chunks, p);
  }
}

template <typename T>
void backward(const KernelArgs& args, const GroupNormGeometry& g, int64_t chunks,
              const GroupNormBackward<T>& p) {
  if (chunks == 0) {
    const auto bytes = static_cast<int64_t>(2 * sizeof(T)) * g.positions * g.width;
    dispatch_width<T>(g.width, [&]<int kVector>() {
      if (bytes <= kGroupNormShared) {
        launch_groups(args, g, bytes, group_norm_dx_kernel<true, kVector, T>, p);
      } else {
        launch_groups(args, g, 0, group_norm_dx_kernel<false, kVector, T>, p);
      }
    });
  } else {
    group_norm_dx_ranges(args, g, chunks, p);
  }
}

}  // namespace

void group_norm_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<NormAttrs>();
  const Shape& shape = args.in[0].shape;
  const GroupNormGeometry g = geometry(shape, attrs.groups);
  if (g.batch == 0) {
    return;
  }
  const int64_t chunks = group_norm_chunks(shape, attrs.groups, args.in[0].dtype, 1);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    forward<T>(args, g, chunks,
               {.x = args.in[0].as<T>(),
                .gamma = args.in[1].as<T>(),
                .beta = args.in[2].as<T>(),
                .y = args.out[0].as<T>(),
                .mean = args.out[1].as<A>(),
                .rstd = args.out[2].as<A>(),
                .eps = static_cast<A>(attrs.eps)});
  });
}

void group_norm_dx_cuda(const KernelArgs& args) {
  const Shape& shape = args.in[0].shape;
  const int groups = args.attr<NormGradAttrs>().groups;
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t chunks = group_norm_chunks(shape, groups, args.in[0].dtype, 2);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    backward<T>(args, geometry(shape, groups), chunks,
                {.dy = args.in[0].as<T>(),
                 .x = args.in[1].as<T>(),
                 .mean = args.in[2].as<A>(),
                 .rstd = args.in[3].as<A>(),
                 .gamma = args.in[4].as<T>(),
                 .dx = args.out[0].as<T>()});
  });
}

void group_norm_dgamma_cuda(const KernelArgs& args) {
  const GroupNormGeometry g = geometry(args.in[0].shape, args.attr<NormGradAttrs>().groups);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const auto term = [&]<int kVector>() {
      return GammaTerm<kVector, T>{args.in[0].as<T>(), args.in[1].as<T>(), args.in[2].as<A>(),
                                   args.in[3].as<A>(), g};
    };
    column_sum<1, T>(args, g.rows(), g.channels, term, args.out[0].as<T>(),
                     static_cast<T*>(nullptr));
  });
}

}  // namespace lithe
