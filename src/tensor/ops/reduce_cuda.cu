#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_walk.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/reduce.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// A reduction as a walk over results and a walk over the elements of one result.
struct Layout {
  Strided<1> kept;
  Strided<1> reduced;
  int64_t results = 1;
  int64_t count = 1;  // elements of one result
};

Layout layout_of(const Shape& x, const ReduceAttrs& attrs) {
  Layout out;
  const auto strides = row_major_strides(x);
  for (int d = 0; d < x.rank(); ++d) {
    const bool is_reduced = ((attrs.axes >> d) & 1) != 0;
    (is_reduced ? out.reduced : out.kept).push(x[d], {strides[static_cast<size_t>(d)]});
    (is_reduced ? out.count : out.results) *= x[d];
  }
  out.kept.finish();
  out.reduced.finish();
  return out;
}

__device__ inline int64_t offset_at(const Strided<1>& walk, int64_t position) {
  if (walk.rank == 1) {
    return position * walk.stride[0][0];
  }
  int64_t at[1];
  offsets_at<1>(walk, static_cast<uint64_t>(position), at);
  return at[0];
}

template <Reduction kKind, typename A>
__device__ inline A identity() {
  return kKind == Reduction::max ? -static_cast<A>(INFINITY) : A(0);
}

template <Reduction kKind>
struct Join {
  template <typename A>
  __device__ A operator()(A a, A b) const {
    if constexpr (kKind == Reduction::max) {
      return b > a || b != b ? b : a;  // NaN is the largest
    } else {
      return a + b;
    }
  }
};

template <Reduction kKind, typename A>
__device__ inline A finish(A total, int64_t count) {
  return kKind == Reduction::mean ? total / static_cast<A>(count) : total;
}

// The contiguous dimension is reduced: a warp or a block takes one result.
template <Reduction kKind, int kGroup, typename T>
__global__ void __launch_bounds__(kThreads) reduce_rows_kernel(const Layout l, const T* x, T* y) {
  using A = acc_t<T>;
  const int64_t result = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kGroup;
  if (result >= l.results) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const T* from = x + offset_at(l.kept, result);
  A total = identity<kKind, A>();
#pragma unroll 4
  for (int64_t i = lane; i < l.count; i += kGroup) {
    total = Join<kKind>{}(total, widen<A>(from[offset_at(l.reduced, i)]));
  }
  total = group_reduce<kGroup>(total, Join<kKind>{});
  if (lane == 0) {
    y[result] = narrow<T>(finish<kKind>(total, l.count));
  }
}

constexpr int kLanes = 32;
constexpr int kSlices = 8;

// The contiguous dimension is kept: neighbouring threads take neighbouring results, and kSlices of
// them share the elements of each.
template <Reduction kKind, typename T>
__global__ void __launch_bounds__(kLanes* kSlices)
    reduce_columns_kernel(const Layout l, const T* x, T* y) {
  using A = acc_t<T>;
  __shared__ A of_slice[kSlices][kLanes];
  const int lane = static_cast<int>(threadIdx.x);
  const int slice = static_cast<int>(threadIdx.y);
  const int64_t result = static_cast<int64_t>(blockIdx.x) * kLanes + lane;
  A total = identity<kKind, A>();
  if (result < l.results) {
    const T* from = x + offset_at(l.kept, result);
#pragma unroll 4
    for (int64_t i = slice; i < l.count; i += kSlices) {
      total = Join<kKind>{}(total, widen<A>(from[offset_at(l.reduced, i)]));
    }
  }
  of_slice[slice][lane] = total;
  __syncthreads();
  if (slice == 0 && result < l.results) {
    for (int s = 1; s < kSlices; ++s) {
      total = Join<kKind>{}(total, of_slice[s][lane]);
    }
    y[result] = narrow<T>(finish<kKind>(total, l.count));
  }
}

template <Reduction kKind, typename T>
void run_reduce(const KernelArgs& args, const Layout& l) {
  const T* x = args.in[0].as<T>();
  T* y = args.out[0].as<T>();
  if (l.reduced.inner_stride()[0] != 1) {
    const dim3 block(kLanes, kSlices);
    reduce_columns_kernel<kKind>
        <<<blocks_for(l.results, kLanes), block, 0, stream_of(args)>>>(l, x, y);
  } else if (l.count <= 1024) {
    reduce_rows_kernel<kKind, kWarp>
        <<<blocks_for(l.results, kThreads / kWarp), kThreads, 0, stream_of(args)>>>(l, x, y);
  } else {
    reduce_rows_kernel<kKind, kThreads>
        <<<blocks_for(l.results, 1), kThreads, 0, stream_of(args)>>>(l, x, y);
  }
  check_launch(args.op);
}

// A value and where it stands; NaN is the largest, of equals the first.
template <typename A>
struct Place {
  A value;
  int64_t index;
  __device__ bool before(const Place& other) const {
    const bool nan = value != value;
    const bool other_nan = other.value != other.value;
    if (nan != other_nan) {
      return nan;
    }
    if (nan || value == other.value) {
      return index < other.index;
    }
    return value > other.value;
  }
};

// One block for each result: finds the first maximum, then writes dy there and 0 elsewhere. x may
// be dx: all of a result's elements are read before one is written.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    max_grad_kernel(const Layout l, const T* dy, const T* x, T* dx) {
  using A = acc_t<T>;
  __shared__ A values[kThreads];
  __shared__ int64_t indices[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t result = blockIdx.x;
  const int64_t base = offset_at(l.kept, result);
  Place<A> best{-static_cast<A>(INFINITY), INT64_MAX};
  for (int64_t i = thread; i < l.count; i += kThreads) {
    const Place<A> here{widen<A>(x[base + offset_at(l.reduced, i)]), i};
    best = here.before(best) ? here : best;
  }
  values[thread] = best.value;
  indices[thread] = best.index;
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (thread < step) {
      const Place<A> other{values[thread + step], indices[thread + step]};
      if (other.before({values[thread], indices[thread]})) {
        values[thread] = other.value;
        indices[thread] = other.index;
      }
    }
    __syncthreads();
  }
  const int64_t where = indices[0];
  const T gradient = dy[result];
  for (int64_t i = thread; i < l.count; i += kThreads) {
    dx[base + offset_at(l.reduced, i)] = i == where ? gradient : narrow<T>(A(0));
  }
}

}  // namespace

void reduce_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ReduceAttrs>();
  const Layout l = layout_of(args.in[0].shape, attrs);
  if (l.results == 0) {
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    switch (attrs.kind) {
      case Reduction::sum:
        return run_reduce<Reduction::sum, T>(args, l);
      case Reduction::mean:
        return run_reduce<Reduction::mean, T>(args, l);
      case Reduction::max:
        return run_reduce<Reduction::max, T>(args, l);
    }
  });
}

void reduce_max_grad_cuda(const KernelArgs& args) {
  const Layout l = layout_of(args.in[1].shape, args.attr<ReduceAttrs>());
  if (l.results == 0 || l.count == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    max_grad_kernel<<<blocks_for(l.results, 1), kThreads, 0, stream_of(args)>>>(
        l, args.in[0].as<T>(), args.in[1].as<T>(), args.out[0].as<T>());
    check_launch(args.op);
  });
}

}  // namespace lithe
