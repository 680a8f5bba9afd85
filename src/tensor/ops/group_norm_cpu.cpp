#include <cmath>

#include "tensor/core/tensor.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/norm.h"

namespace lithe {
namespace {

// x [B, P, C]: positions are cut in ranges that do not depend on the number of threads; each range
// gives sums per channel (vector code for any group size), which are then joined in order.
struct Geometry {
  Geometry(const Shape& x, int group_count)
      : batch(x[0]),
        positions(x.product(1, x.rank() - 1)),
        channels(x.back()),
        groups(group_count),
        width(channels / group_count),
        chunks(row_chunks(positions)) {}

  int64_t group_elements() const { return positions * width; }
  int64_t partial_elements(int64_t sums) const { return batch * chunks * sums * channels; }

  int64_t batch, positions, channels, groups, width, chunks;
};

// add(sample, first element, positions, sums) over all ranges; sums [kSums, C] starts at zero.
template <int kSums, typename A, typename Add>
void partial_sums(const Geometry& g, A* partial, Add&& add) {
  const int64_t size = kSums * g.channels;
  const int64_t cost = g.channels * (g.positions / g.chunks + 1);
  parallel_for(g.batch * g.chunks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / g.chunks;
      const int64_t chunk = task % g.chunks;
      const int64_t first = g.positions * chunk / g.chunks;
      const int64_t last = g.positions * (chunk + 1) / g.chunks;
      A* sums = partial + task * size;
      std::fill_n(sums, size, A(0));
      add(b, (b * g.positions + first) * g.channels, last - first, sums);
    }
  });
}

// Total of one channel over the ranges of one sample.
template <int kSums, typename A>
A channel_total(const Geometry& g, const A* partial, int64_t b, int sum, int64_t c) {
  const A* from = partial + (b * g.chunks * kSums + sum) * g.channels + c;
  A total = 0;
  for (int64_t chunk = 0; chunk < g.chunks; ++chunk) {
    total += from[chunk * kSums * g.channels];
  }
  return total;
}

// body(sample, first element, positions) over all ranges.
template <typename Body>
void for_ranges(const Geometry& g, Body&& body) {
  const int64_t cost = g.channels * (g.positions / g.chunks + 1);
  parallel_for(g.batch * g.chunks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / g.chunks;
      const int64_t first = g.positions * (task % g.chunks) / g.chunks;
      const int64_t last = g.positions * (task % g.chunks + 1) / g.chunks;
      body(b, (b * g.positions + first) * g.channels, last - first);
    }
  });
}

template <typename A>
A inverse(int64_t n) {
  return n == 0 ? A(0) : A(1) / static_cast<A>(n);
}

// Sums of dy and of dy (x - mean) per channel.
template <typename T, typename A>
void backward_sums(const Geometry& g, const T* dy, const T* x, const A* mean, A* means,
                   A* partial) {
  for (int64_t b = 0; b < g.batch; ++b) {
    for (int64_t c = 0; c < g.channels; ++c) {
      means[b * g.channels + c] = mean[b * g.groups + c / g.width];
    }
  }
  partial_sums<2>(g, partial, [&](int64_t b, int64_t at, int64_t count, A* sums) {
    const A* m = means + b * g.channels;
    A* dots = sums + g.channels;
    for (int64_t p = 0; p < count; ++p) {
      const T* d = dy + at + p * g.channels;
      const T* v = x + at + p * g.channels;
#pragma omp simd
      for (int64_t c = 0; c < g.channels; ++c) {
        sums[c] += static_cast<A>(d[c]);
        dots[c] += static_cast<A>(d[c]) * (static_cast<A>(v[c]) - m[c]);
      }
    }
  });
}

template <typename T, typename A = acc_t<T>>
void forward(const Geometry& g, const T* x, const T* gamma, const T* beta, A eps, T* y, A* mean,
             A* rstd, A* partial) {
  A* coefficients = partial + g.partial_elements(1);  // [B, 2, C]: y = (x - first) * second + beta
  partial_sums<1>(g, partial, [&](int64_t, int64_t at, int64_t count, A* sums) {
    for (int64_t p = 0; p < count; ++p) {
      const T* v = x + at + p * g.channels;
#pragma omp simd
      for (int64_t c = 0; c < g.channels; ++c) {
        sums[c] += static_cast<A>(v[c]);
      }
    }
  });
  for (int64_t i = 0; i < g.batch * g.groups; ++i) {
    const int64_t b = i / g.groups;
    A sum = 0;
    for (int64_t c = i % g.groups * g.width; c < (i % g.groups + 1) * g.width; ++c) {
      sum += channel_total<1>(g, partial, b, 0, c);
    }
    mean[i] = sum * inverse<A>(g.group_elements());
    std::fill_n(coefficients + b * 2 * g.channels + i % g.groups * g.width, g.width, mean[i]);
  }
  partial_sums<1>(g, partial, [&](int64_t b, int64_t at, int64_t count, A* sums) {
    const A* m = coefficients + b * 2 * g.channels;
    for (int64_t p = 0; p < count; ++p) {
      const T* v = x + at + p * g.channels;
#pragma omp simd
      for (int64_t c = 0; c < g.channels; ++c) {
        const A d = static_cast<A>(v[c]) - m[c];
        sums[c] += d * d;
      }
    }
  });
  for (int64_t i = 0; i < g.batch * g.groups; ++i) {
    const int64_t b = i / g.groups;
    const int64_t first = i % g.groups * g.width;
    A squares = 0;
    for (int64_t c = first; c < first + g.width; ++c) {
      squares += channel_total<1>(g, partial, b, 0, c);
    }
    rstd[i] = A(1) / std::sqrt(squares * inverse<A>(g.group_elements()) + eps);
    A* scale = coefficients + (b * 2 + 1) * g.channels;
    for (int64_t c = first; c < first + g.width; ++c) {
      scale[c] = rstd[i] * static_cast<A>(gamma[c]);
    }
  }
  for_ranges(g, [&](int64_t b, int64_t at, int64_t count) {
    const A* m = coefficients + b * 2 * g.channels;
    const A* scale = m + g.channels;
    for (int64_t p = 0; p < count; ++p) {
      const T* v = x + at + p * g.channels;
      T* to = y + at + p * g.channels;
#pragma omp simd
      for (int64_t c = 0; c < g.channels; ++c) {
        to[c] = T((static_cast<A>(v[c]) - m[c]) * scale[c] + static_cast<A>(beta[c]));
      }
    }
  });
}

// With u = dy * gamma and means over a group: dx = rstd (u - mean(u) - xhat mean(u xhat)), which is
// linear in dy and x with coefficients per channel.
template <typename T, typename A = acc_t<T>>
void backward_x(const Geometry& g, const T* dy, const T* x, const A* mean, const A* rstd,
                const T* gamma, T* dx, A* partial) {
  A* means = partial + g.partial_elements(2);      // [B, C]
  A* coefficients = means + g.batch * g.channels;  // [B, 2, C]: slope in x - mean, constant
  backward_sums(g, dy, x, mean, means, partial);
  for (int64_t i = 0; i < g.batch * g.groups; ++i) {
    const int64_t b = i / g.groups;
    const int64_t first = i % g.groups * g.width;
    A sum = 0;
    A dot = 0;
    for (int64_t c = first; c < first + g.width; ++c) {
      sum += static_cast<A>(gamma[c]) * channel_total<2>(g, partial, b, 0, c);
      dot += static_cast<A>(gamma[c]) * channel_total<2>(g, partial, b, 1, c);
    }
    const A n = inverse<A>(g.group_elements());
    A* slope = coefficients + b * 2 * g.channels + first;
    std::fill_n(slope, g.width, -dot * n * rstd[i] * rstd[i] * rstd[i]);
    std::fill_n(slope + g.channels, g.width, -sum * n * rstd[i]);
  }
  for_ranges(g, [&](int64_t b, int64_t at, int64_t count) {
    const A* m = means + b * g.channels;
    const A* slope = coefficients + b * 2 * g.channels;
    const A* constant = slope + g.channels;
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t group = 0; group < g.groups; ++group) {
        const A r = rstd[b * g.groups + group];
        const int64_t row = at + p * g.channels;
#pragma omp simd
        for (int64_t c = group * g.width; c < (group + 1) * g.width; ++c) {
          const A u = static_cast<A>(dy[row + c]) * static_cast<A>(gamma[c]);
          const A centred = static_cast<A>(x[row + c]) - m[c];
          dx[row + c] = T(r * u + slope[c] * centred + constant[c]);
        }
      }
    }
  });
}

}  // namespace

void group_norm_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<NormAttrs>();
  const Geometry g(args.in[0].shape, attrs.groups);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    forward(g, args.in[0].as<const T>(), args.in[1].as<const T>(), args.in[2].as<const T>(),
            static_cast<A>(attrs.eps), args.out[0].as<T>(), args.out[1].as<A>(),
            args.out[2].as<A>(), static_cast<A*>(args.workspace));
  });
}

void group_norm_dx_cpu(const KernelArgs& args) {
  const Geometry g(args.in[0].shape, args.attr<NormGradAttrs>().groups);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    backward_x(g, args.in[0].as<const T>(), args.in[1].as<const T>(), args.in[2].as<const A>(),
               args.in[3].as<const A>(), args.in[4].as<const T>(), args.out[0].as<T>(),
               static_cast<A*>(args.workspace));
  });
}

void group_norm_dgamma_cpu(const KernelArgs& args) {
  const Geometry g(args.in[0].shape, args.attr<NormGradAttrs>().groups);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const A* rstd = args.in[3].as<A>();
    A* partial = static_cast<A*>(args.workspace);
    backward_sums(g, args.in[0].as<const T>(), args.in[1].as<const T>(), args.in[2].as<const A>(),
                  partial + g.partial_elements(2), partial);
    for (int64_t c = 0; c < g.channels; ++c) {
      A sum = 0;
      for (int64_t b = 0; b < g.batch; ++b) {
        sum += rstd[b * g.groups + c / g.width] * channel_total<2>(g, partial, b, 1, c);
      }
      args.out[0].as<T>()[c] = T(sum);
    }
  });
}

}  // namespace lithe
