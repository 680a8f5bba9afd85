// The k largest elements of each row, one block a row: the k-th key is found digit by digit with
// counts, what lies above it is gathered in the order of the row and sorted. Counts are whole
// numbers and the order is total, so every run gives the same result.
#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/top_k.h"
#include "tensor/ops/top_k_order.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
static_assert(kDigits == kThreads);  // one digit a thread
constexpr int kSorted = 2048;        // elements that are sorted in shared memory

// The sum of `value` over this thread and those before it, and over the whole block in `total`.
__device__ inline int inclusive_sum(int value, int& total) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ int of_warp[kWarps];
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, value, step);
    value += lane >= step ? before : 0;
  }
  if (lane == kWarp - 1) {
    of_warp[warp] = value;
  }
  __syncthreads();
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    value += w < warp ? of_warp[w] : 0;
    total += of_warp[w];
  }
  __syncthreads();  // the next sum writes there again
  return value;
}

template <typename K>
struct Kth {
  K key;          // the largest that at least k elements reach
  int64_t equal;  // how many of the elements with just this key belong to the k
};

template <bool kMagnitude, typename T>
__device__ Kth<order_key_t<acc_t<T>>> find_kth(const T* x, int64_t size, int64_t k) {
  using A = acc_t<T>;
  using K = order_key_t<A>;
  __shared__ unsigned counts[kDigits];
  __shared__ K chosen_key;
  __shared__ int64_t chosen_rest;
  const int thread = static_cast<int>(threadIdx.x);
  K found = 0;
  K known = 0;  // the bits that `found` has
  int64_t rest = k;
  for (int shift = static_cast<int>(sizeof(K)) * 8 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    counts[thread] = 0;
    __syncthreads();
    for (int64_t i = thread; i < size; i += kThreads) {
      const K key = order_key<kMagnitude>(widen<A>(x[i]));
      if ((key & known) == found) {
        atomicAdd(&counts[static_cast<int>(key >> shift) & (kDigits - 1)], 1u);
      }
    }
    __syncthreads();
    // Thread 0 stands for the largest digit. A row has less than 2^31 elements.
    const int digit = kDigits - 1 - thread;
    const int own = static_cast<int>(counts[digit]);
    int total = 0;
    const int reached = inclusive_sum(own, total);
    if (reached >= rest && reached - own < rest) {
      chosen_key = found | (static_cast<K>(digit) << shift);
      chosen_rest = rest - (reached - own);
    }
    __syncthreads();
    found = chosen_key;
    rest = chosen_rest;
    known |= static_cast<K>(kDigits - 1) << shift;
  }
  return {found, rest};
}

// Sorts positions [0, n): `order(a, b)` with a < b swaps what is there if it is the wrong way
// round. A bitonic network in which every step puts the earlier element first, so that one of any
// size is that of the next power of two without the steps that reach beyond n.
template <typename Order>
__device__ void sort_block(int64_t n, Order&& order) {
  for (int64_t span = 2; span / 2 < n; span *= 2) {
    for (int64_t step = span / 2; step > 0; step /= 2) {
      const bool mirrored = step == span / 2;
      for (int64_t pair = threadIdx.x; pair < (n + span - 1) / span * (span / 2);
           pair += kThreads) {
        const int64_t group = pair / step;
        const int64_t within = pair - group * step;
        const int64_t a = group * 2 * step + within;
        const int64_t b = mirrored ? group * 2 * step + 2 * step - 1 - within : a + step;
        if (b < n) {
          order(a, b);
        }
      }
      __syncthreads();
    }
  }
}

template <bool kMagnitude, typename T>
__global__ void __launch_bounds__(kThreads)
    top_k_kernel(int64_t size, int64_t k, const T* all, T* all_values, int32_t* all_indices) {
  using A = acc_t<T>;
  using K = order_key_t<A>;
  __shared__ K keys[kSorted];
  __shared__ int32_t places[kSorted];
  const int thread = static_cast<int>(threadIdx.x);
  const T* x = all + blockIdx.x * size;
  T* values = all_values + blockIdx.x * k;
  int32_t* indices = all_indices + blockIdx.x * k;
  const auto key_of = [=](int64_t i) { return order_key<kMagnitude>(widen<A>(x[i])); };
  const auto [least, equal] = find_kth<kMagnitude>(x, size, k);
  const int64_t above = k - equal;
  const bool in_shared = above <= kSorted;
  // Those equal to the k-th key come last, in the order of the row: they are in place at once.
  int64_t seen_above = 0;
  int64_t seen_equal = 0;
  for (int64_t begin = 0; begin < size && seen_above + std::min(seen_equal, equal) < k;
       begin += kThreads) {
    const int64_t i = begin + thread;
    const K key = i < size ? key_of(i) : K(0);
    const int is_above = i < size && key > least ? 1 : 0;
    const int is_equal = i < size && key == least ? 1 : 0;
    int total = 0;
    const int sum = inclusive_sum(is_above | is_equal << 16, total);
    const int64_t rank_above = seen_above + (sum & 0xffff) - 1;
    const int64_t rank_equal = seen_equal + (sum >> 16) - 1;
    if (is_above != 0) {
      if (in_shared) {
        keys[rank_above] = key;
        places[rank_above] = static_cast<int32_t>(i);
      } else {
        indices[rank_above] = static_cast<int32_t>(i);
      }
    } else if (is_equal != 0 && rank_equal < equal) {
      indices[above + rank_equal] = static_cast<int32_t>(i);
    }
    seen_above += total & 0xffff;
    seen_equal += total >> 16;
  }
  __syncthreads();
  if (in_shared) {
    sort_block(above, [&](int64_t a, int64_t b) {
      if (keys[a] < keys[b] || (keys[a] == keys[b] && places[a] > places[b])) {
        const K key = keys[a];
        keys[a] = keys[b];
        keys[b] = key;
        const int32_t place = places[a];
        places[a] = places[b];
        places[b] = place;
      }
    });
    for (int64_t j = thread; j < above; j += kThreads) {
      indices[j] = places[j];
    }
  } else {
    sort_block(above, [&](int64_t a, int64_t b) {
      const int32_t first = indices[a];
      const int32_t second = indices[b];
      const K first_key = key_of(first);
      const K second_key = key_of(second);
      if (first_key < second_key || (first_key == second_key && first > second)) {
        indices[a] = second;
        indices[b] = first;
      }
    });
  }
  __syncthreads();
  for (int64_t j = thread; j < k; j += kThreads) {
    values[j] = x[indices[j]];
  }
}

// dx, cleared before, at the chosen elements; they are distinct.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(int64_t n, int64_t k, int64_t size, const T* dvalues, const int32_t* indices,
                   T* dx) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) {
    dx[i / k * size + indices[i]] = dvalues[i];
  }
}

}  // namespace

void top_k_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<TopKAttrs>();
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t size = args.in[0].shape.back();
  const unsigned rows = blocks_for(args.in[0].numel() / size, 1);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const auto launch = [&]<bool kMagnitude>() {
      top_k_kernel<kMagnitude, T><<<rows, kThreads, 0, stream_of(args)>>>(
          size, attrs.k, args.in[0].as<T>(), args.out[0].as<T>(), args.out[1].as<int32_t>());
    };
    attrs.by_magnitude ? launch.template operator()<true>() : launch.template operator()<false>();
    check_launch(args.op);
  });
}

void top_k_grad_cuda(const KernelArgs& args) {
  const TensorRef& dx = args.out[0];
  const int64_t n = args.in[0].numel();
  if (dx.numel() == 0) {
    return;
  }
  cuda_check(cudaMemsetAsync(dx.data, 0, static_cast<size_t>(dx.bytes()), stream_of(args)), args.op,
             "clearing");
  if (n == 0) {
    return;
  }
  dispatch_floating(dx.dtype, args.op, [&]<typename T>() {
    scatter_kernel<<<blocks_for(n, kThreads), kThreads, 0, stream_of(args)>>>(
        n, args.in[0].shape.back(), dx.shape.back(), args.in[0].as<T>(), args.in[1].as<int32_t>(),
        dx.as<T>());
    check_launch(args.op);
  });
}

}  // namespace lithe
