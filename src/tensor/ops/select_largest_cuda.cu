// The k-th key of the whole tensor is found digit by digit with counts that all blocks add up; then
// every range counts what it holds of the chosen, which tells each where to write. Counts are whole
// numbers and the order is total, so every run gives the same result.
#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/top_k_order.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kDigits = 1 << kSelectDigitBits;
constexpr int kDigitsOfThread = kDigits / kThreads;
static_assert(kDigits % kThreads == 0 && kSelectRanges == 1024);

// In the workspace, in this order; cleared before.
template <typename K>
struct Found {
  K key;         // of the k-th element, as far as it is known
  int32_t rest;  // of the elements with this beginning, how many belong to the k
};

// The sum of `value` over this thread and those before it.
template <int kBlock>
__device__ inline int inclusive_sum(int value) {
  constexpr int kWarps = kBlock / kWarp;
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
  for (int w = 0; w < warp; ++w) {
    value += of_warp[w];
  }
  __syncthreads();  // the next sum writes there again
  return value;
}

template <typename T, typename A = acc_t<T>>
__device__ inline order_key_t<A> key_at(const T* x, int64_t i) {
  return order_key<true>(widen<A>(x[i]));
}

// The bits above the digit, those that Found has.
template <typename K>
__device__ inline K known_bits(int shift, int width) {
  return shift + width == static_cast<int>(sizeof(K)) * 8 ? K(0) : ~K(0) << (shift + width);
}

// Adds up how often each digit occurs among the elements that begin as the k-th does.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    digit_kernel(int64_t n, int shift, int width, const T* x, const Found<order_key_t<acc_t<T>>>* f,
                 unsigned* counts) {
  using K = order_key_t<acc_t<T>>;
  __shared__ unsigned own[kDigits];
  for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kThreads) {
    own[d] = 0;
  }
  __syncthreads();
  const K known = known_bits<K>(shift, width);
  const K begins = f->key;
  const K digits = (K(1) << width) - 1;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    const K key = key_at(x, i);
    if ((key & known) == begins) {
      atomicAdd(&own[static_cast<int>((key >> shift) & digits)], 1u);
    }
  }
  __syncthreads();
  for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kThreads) {
    if (own[d] != 0) {
      atomicAdd(&counts[d], own[d]);
    }
  }
}

// One block: the digit of the k-th element joins what is found, and the counts are cleared.
template <typename K>
__global__ void __launch_bounds__(kThreads)
    choose_kernel(int shift, int first_rest, Found<K>* f, unsigned* counts) {
  const int rest = first_rest > 0 ? first_rest : f->rest;
  const K begins = f->key;
  // Thread 0 stands for the largest digits.
  const int top = kDigits - 1 - static_cast<int>(threadIdx.x) * kDigitsOfThread;
  int own = 0;
#pragma unroll
  for (int d = 0; d < kDigitsOfThread; ++d) {
    own += static_cast<int>(counts[top - d]);
  }
  const int reached = inclusive_sum<kThreads>(own);  // its barriers part reading f from writing it
  if (reached >= rest && reached - own < rest) {
    int missing = rest - (reached - own);
    int digit = top;
    while (static_cast<int>(counts[digit]) < missing) {
      missing -= static_cast<int>(counts[digit--]);
    }
    f->key = begins | (static_cast<K>(digit) << shift);
    f->rest = missing;
  }
  __syncthreads();
#pragma unroll
  for (int d = 0; d < kDigitsOfThread; ++d) {
    counts[top - d] = 0;
  }
}

// How many of each range lie above the k-th key, and on it.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    count_kernel(int64_t n, int64_t range, const T* x, const Found<order_key_t<acc_t<T>>>* f,
                 int* above, int* equal) {
  const auto least = f->key;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * range;
  const int64_t end = min(n, begin + range);
  int is_above = 0;
  int is_equal = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const auto key = key_at(x, i);
    is_above += key > least ? 1 : 0;
    is_equal += key == least ? 1 : 0;
  }
  is_above = group_reduce<kThreads>(is_above, Sum{});
  is_equal = group_reduce<kThreads>(is_equal, Sum{});
  if (threadIdx.x == 0) {
    above[blockIdx.x] = is_above;
    equal[blockIdx.x] = is_equal;
  }
}

// One block: counts become those of all ranges before.
__global__ void __launch_bounds__(kSelectRanges) sum_kernel(int ranges, int* above, int* equal) {
  const int range = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 2; ++i) {
    int* const counts = i == 0 ? above : equal;
    const int own = range < ranges ? counts[range] : 0;
    const int sum = inclusive_sum<kSelectRanges>(own);
    if (range < ranges) {
      counts[range] = sum - own;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    write_kernel(int64_t n, int64_t range, const T* x, const Found<order_key_t<acc_t<T>>>* f,
                 const int* above, const int* equal, T* values, int32_t* indices) {
  const auto least = f->key;
  const int wanted = f->rest;  // of those on the k-th key, the first ones
  __shared__ int total_above;
  __shared__ int total_equal;
  int seen_above = above[blockIdx.x];
  int seen_equal = equal[blockIdx.x];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * range;
  const int64_t end = min(n, begin + range);
  for (int64_t first = begin; first < end; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const bool inside = i < end;
    const auto key = inside ? key_at(x, i) : least;
    const int is_above = inside && key > least ? 1 : 0;
    const int is_equal = inside && key == least ? 1 : 0;
    // Both counts are at most 256.
    const int sum = inclusive_sum<kThreads>(is_above | is_equal << 16);
    const int before_above = seen_above + (sum & 0xffff) - is_above;
    const int before_equal = seen_equal + (sum >> 16) - is_equal;
    if (is_above != 0 || (is_equal != 0 && before_equal < wanted)) {
      const int place = before_above + min(before_equal, wanted);
      values[place] = x[i];
      indices[place] = static_cast<int32_t>(i);
    }
    if (threadIdx.x == kThreads - 1) {
      total_above = sum & 0xffff;
      total_equal = sum >> 16;
    }
    __syncthreads();
    seen_above += total_above;
    seen_equal += total_equal;
    // The next sum's barriers stand between this reading and the next writing.
  }
}

template <typename T>
void select(const KernelArgs& args, int64_t k) {
  using K = order_key_t<acc_t<T>>;
  const cudaStream_t stream = stream_of(args);
  const int64_t n = args.in[0].numel();
  const T* x = args.in[0].as<T>();
  auto* const found = static_cast<Found<K>*>(args.workspace);
  auto* const counts = reinterpret_cast<unsigned*>(static_cast<char*>(args.workspace) + 16);
  int* const above = reinterpret_cast<int*>(counts + kDigits);
  int* const equal = above + kSelectRanges;
  cuda_check(cudaMemsetAsync(args.workspace, 0, 16 + kDigits * sizeof(unsigned), stream), args.op,
             "clearing");
  const int64_t packs = (n + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(packs, kSelectRanges));
  int shift = static_cast<int>(sizeof(K)) * 8;
  for (bool first = true; shift > 0; first = false) {
    const int width = std::min(kSelectDigitBits, shift);
    shift -= width;
    digit_kernel<T><<<blocks, kThreads, 0, stream>>>(n, shift, width, x, found, counts);
    choose_kernel<K>
        <<<1, kThreads, 0, stream>>>(shift, first ? static_cast<int>(k) : 0, found, counts);
  }
  const int64_t range = (packs + kSelectRanges - 1) / kSelectRanges * kThreads;
  const unsigned ranges = blocks_for(n, range);
  count_kernel<T><<<ranges, kThreads, 0, stream>>>(n, range, x, found, above, equal);
  sum_kernel<<<1, kSelectRanges, 0, stream>>>(static_cast<int>(ranges), above, equal);
  write_kernel<T><<<ranges, kThreads, 0, stream>>>(n, range, x, found, above, equal,
                                                   args.out[0].as<T>(), args.out[1].as<int32_t>());
  check_launch(args.op);
}

}  // namespace

void select_largest_cuda(const KernelArgs& args) {
  const int64_t k = args.attr<SelectLargestAttrs>().k;
  if (k == 0) {
    return;
  }
  expect_workspace(args, 16 + 4 * (kDigits + 2 * kSelectRanges));
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() { select<T>(args, k); });
}

}  // namespace lithe
