// Group norm's kernels for groups that no block can hold: sums over ranges of positions first (per
// channel, in a fixed order), then joined, then applied. Device-only.
#pragma once

#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/cuda_reduce.h"

namespace lithe::device {

inline constexpr int kGroupNormThreads = 256;

// x [batch, positions, channels], groups of `width` channels.
struct GroupNormGeometry {
  int64_t batch, positions, channels, groups, width;

  __host__ __device__ int64_t rows() const { return batch * positions; }
  template <typename A>
  __device__ A share() const {  // 1 / elements of a group
    const int64_t n = positions * width;
    return n == 0 ? A(0) : A(1) / static_cast<A>(n);
  }
};

template <typename T>
struct GroupNormForward {
  const T* x;
  const T* gamma;
  const T* beta;
  T* y;
  acc_t<T>* mean;
  acc_t<T>* rstd;
  acc_t<T> eps;
};

template <typename T>
struct GroupNormBackward {
  const T* dy;
  const T* x;
  const acc_t<T>* mean;
  const acc_t<T>* rstd;
  const T* gamma;
  T* dx;
};

__device__ inline float inverse_root(float x) { return 1.0f / sqrtf(x); }
__device__ inline double inverse_root(double x) { return 1.0 / sqrt(x); }

// Sums of x - shift and its square, shift being the range's first row: near the values, so that
// the mean's square, taken off later, is no larger than what it is taken from.
template <int kVector, typename T>
struct SpreadTerm {
  const T* x;
  int64_t rows, columns;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[2][kVector]) const {
    using A = acc_t<T>;
    const int64_t first = rows * blockIdx.y / gridDim.y;
    const Pack<T, kVector> shift = load<kVector>(x + first * columns + column);
    const Pack<T, kVector> pack = load<kVector>(x + row * columns + column);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A d = widen<A>(pack.at[j]) - widen<A>(shift.at[j]);
      sums[0][j] += d;
      sums[1][j] += d * d;
    }
  }
};

// Sums of dy and of dy (x - mean).
template <int kVector, typename T>
struct SlopeTerm {
  const T* dy;
  const T* x;
  const acc_t<T>* mean;
  GroupNormGeometry g;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[2][kVector]) const {
    using A = acc_t<T>;
    const int64_t chunks = gridDim.y / g.batch;
    const A* means = mean + blockIdx.y / chunks * g.groups;
    const Pack<T, kVector> d = load<kVector>(dy + row * g.channels + column);
    const Pack<T, kVector> v = load<kVector>(x + row * g.channels + column);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A upstream = widen<A>(d.at[j]);
      sums[0][j] += upstream;
      sums[1][j] += upstream * (widen<A>(v.at[j]) - means[(column + j) / g.width]);
    }
  }
};

// Calls f(sums of a range and channel, its positions, its first element of x, channel) for this
// thread's share of the block's group.
template <typename A, typename F>
__device__ void for_partial(const GroupNormGeometry& g, int64_t chunks, const A* partial, F&& f) {
  const int64_t sample = blockIdx.x / g.groups;
  const int64_t first = (blockIdx.x - sample * g.groups) * g.width;
  for (int64_t i = threadIdx.x; i < chunks * g.width; i += kGroupNormThreads) {
    const int64_t chunk = i / g.width;
    const int64_t channel = first + (i - chunk * g.width);
    const int64_t begin = g.positions * chunk / chunks;
    const int64_t end = g.positions * (chunk + 1) / chunks;
    const A* sums = partial + (sample * chunks + chunk) * 2 * g.channels + channel;
    f(sums, static_cast<A>(end - begin), (sample * g.positions + begin) * g.channels + channel,
      channel);
  }
}

// Statistics of one group a block, by the pairwise rule of Chan, Golub and LeVeque (1983): the
// ranges' squares around their own means, and those of their means around the group's.
template <typename T>
__global__ void __launch_bounds__(kGroupNormThreads)
    join_statistics_kernel(const GroupNormGeometry g, int64_t chunks, const GroupNormForward<T> p,
                           const acc_t<T>* partial) {
  using A = acc_t<T>;
  A sum = 0;
  for_partial(g, chunks, partial, [&](const A* sums, A n, int64_t at, int64_t) {
    sum += n * widen<A>(p.x[at]) + sums[0];
  });
  const A mean = group_reduce<kGroupNormThreads>(sum, Sum{}) * g.share<A>();
  A squares = 0;
  for_partial(g, chunks, partial, [&](const A* sums, A n, int64_t at, int64_t) {
    const A step = sums[0] / n;
    const A d = (widen<A>(p.x[at]) - mean) + step;
    squares += fmax(sums[g.channels] - sums[0] * step, A(0)) + n * d * d;
  });
  squares = group_reduce<kGroupNormThreads>(squares, Sum{});
  if (threadIdx.x == 0) {
    p.mean[blockIdx.x] = mean;
    p.rstd[blockIdx.x] = inverse_root(squares * g.share<A>() + p.eps);
  }
}

// coefficients [B, groups, 2]: mean(u), and rstd² mean(u d).
template <typename T>
__global__ void __launch_bounds__(kGroupNormThreads)
    join_slopes_kernel(const GroupNormGeometry g, int64_t chunks, const GroupNormBackward<T> p,
                       const acc_t<T>* partial, acc_t<T>* coefficients) {
  using A = acc_t<T>;
  A sum = 0;
  A dot = 0;
  for_partial(g, chunks, partial, [&](const A* sums, A, int64_t, int64_t channel) {
    const A gamma = widen<A>(p.gamma[channel]);
    sum += gamma * sums[0];
    dot += gamma * sums[g.channels];
  });
  sum = group_reduce<kGroupNormThreads>(sum, Sum{});
  dot = group_reduce<kGroupNormThreads>(dot, Sum{});
  if (threadIdx.x == 0) {
    const A rstd = p.rstd[blockIdx.x];
    coefficients[2 * blockIdx.x] = sum * g.share<A>();
    coefficients[2 * blockIdx.x + 1] = dot * g.share<A>() * rstd * rstd;
  }
}

// Which group the channels of a pack belong to, one after the other.
struct GroupCursor {
  int64_t group, left, width;  // channels of the group from this one on

  __device__ GroupCursor(const GroupNormGeometry& g, int64_t row, int64_t channel)
      : width(g.width) {
    const int64_t own = channel / width;
    group = row / g.positions * g.groups + own;
    left = (own + 1) * width - channel;
  }
  __device__ void next() {
    if (--left == 0) {
      left = width;
      ++group;
    }
  }
};

// Calls f(element, channel, cursor) for this thread's pack of all elements.
template <int kVector, typename F>
__device__ void for_pack(const GroupNormGeometry& g, F&& f) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kGroupNormThreads + threadIdx.x) * kVector;
  if (i < g.rows() * g.channels) {
    const int64_t row = i / g.channels;
    const int64_t channel = i - row * g.channels;
    f(i, channel, GroupCursor(g, row, channel));
  }
}

template <int kVector, typename T>
__global__ void __launch_bounds__(kGroupNormThreads)
    normalise_kernel(const GroupNormGeometry g, const GroupNormForward<T> p) {
  using A = acc_t<T>;
  for_pack<kVector>(g, [&](int64_t i, int64_t channel, GroupCursor at) {
    Pack<T, kVector> pack = load<kVector>(p.x + i);
    const Pack<T, kVector> gamma = load<kVector>(p.gamma + channel);
    const Pack<T, kVector> beta = load<kVector>(p.beta + channel);
#pragma unroll
    for (int j = 0; j < kVector; ++j, at.next()) {
      pack.at[j] = narrow<T>((widen<A>(pack.at[j]) - p.mean[at.group]) *
                                 (p.rstd[at.group] * widen<A>(gamma.at[j])) +
                             widen<A>(beta.at[j]));
    }
    store(p.y + i, pack);
  });
}

template <int kVector, typename T>
__global__ void __launch_bounds__(kGroupNormThreads)
    normalise_dx_kernel(const GroupNormGeometry g, const GroupNormBackward<T> p,
                        const acc_t<T>* coefficients) {
  using A = acc_t<T>;
  for_pack<kVector>(g, [&](int64_t i, int64_t channel, GroupCursor at) {
    const Pack<T, kVector> x = load<kVector>(p.x + i);
    const Pack<T, kVector> gamma = load<kVector>(p.gamma + channel);
    Pack<T, kVector> pack = load<kVector>(p.dy + i);
#pragma unroll
    for (int j = 0; j < kVector; ++j, at.next()) {
      const A* means = coefficients + 2 * at.group;
      const A u = widen<A>(pack.at[j]) * widen<A>(gamma.at[j]);
      const A d = widen<A>(x.at[j]) - p.mean[at.group];
      pack.at[j] = narrow<T>(p.rstd[at.group] * (u - means[0] - d * means[1]));
    }
    store(p.dx + i, pack);
  });
}

// Sums of a term, made by `make.operator()<kVector>()`, over every range of positions.
template <typename T, typename Make>
void sum_ranges(const KernelArgs& args, const GroupNormGeometry& g, int64_t chunks, Make&& make) {
  using A = acc_t<T>;
  const auto launch = [&]<int kVector>() {
    const dim3 grid(blocks_for(g.channels, kColumnLanes * kVector),
                    static_cast<unsigned>(g.batch * chunks));
    column_sum_kernel<kVector, 2, A>
        <<<grid, dim3(kColumnLanes, kColumnSlices), 0, stream_of(args)>>>(
            g.rows(), g.channels, make.template operator()<kVector>(),
            static_cast<A*>(args.workspace));
    check_launch(args.op);
  };
  g.channels % kWide<T> == 0 ? launch.template operator()<kWide<T>>()
                             : launch.template operator()<1>();
}

template <typename T, typename Make>
void launch_packs(const KernelArgs& args, const GroupNormGeometry& g, Make&& launch) {
  const int64_t n = g.rows() * g.channels;
  g.channels % kWide<T> == 0
      ? launch.template operator()<kWide<T>>(blocks_for(n / kWide<T>, kGroupNormThreads))
      : launch.template operator()<1>(blocks_for(n, kGroupNormThreads));
  check_launch(args.op);
}

// Workspace: sums [B, chunks, 2, C], coefficients [B, groups, 2].
template <typename T>
void expect_range_workspace(const KernelArgs& args, const GroupNormGeometry& g, int64_t chunks) {
  expect_workspace(args, g.batch * (g.channels * chunks + g.groups) * 2 *
                             static_cast<int64_t>(sizeof(acc_t<T>)));
}

template <typename T>
void group_norm_ranges(const KernelArgs& args, const GroupNormGeometry& g, int64_t chunks,
                       const GroupNormForward<T>& p) {
  using A = acc_t<T>;
  expect_range_workspace<T>(args, g, chunks);
  sum_ranges<T>(args, g, chunks, [&]<int kVector>() {
    return SpreadTerm<kVector, T>{p.x, g.rows(), g.channels};
  });
  join_statistics_kernel<T>
      <<<blocks_for(g.batch * g.groups, 1), kGroupNormThreads, 0, stream_of(args)>>>(
          g, chunks, p, static_cast<const A*>(args.workspace));
  check_launch(args.op);
  launch_packs<T>(args, g, [&]<int kVector>(unsigned blocks) {
    normalise_kernel<kVector, T><<<blocks, kGroupNormThreads, 0, stream_of(args)>>>(g, p);
  });
}

template <typename T>
void group_norm_dx_ranges(const KernelArgs& args, const GroupNormGeometry& g, int64_t chunks,
                          const GroupNormBackward<T>& p) {
  using A = acc_t<T>;
  expect_range_workspace<T>(args, g, chunks);
  A* partial = static_cast<A*>(args.workspace);
  A* coefficients = partial + g.batch * chunks * 2 * g.channels;
  sum_ranges<T>(args, g, chunks, [&]<int kVector>() {
    return SlopeTerm<kVector, T>{p.dy, p.x, p.mean, g};
  });
  join_slopes_kernel<T>
      <<<blocks_for(g.batch * g.groups, 1), kGroupNormThreads, 0, stream_of(args)>>>(
          g, chunks, p, partial, coefficients);
  check_launch(args.op);
  launch_packs<T>(args, g, [&]<int kVector>(unsigned blocks) {
    normalise_dx_kernel<kVector, T>
        <<<blocks, kGroupNormThreads, 0, stream_of(args)>>>(g, p, coefficients);
  });
}

}  // namespace lithe::device
