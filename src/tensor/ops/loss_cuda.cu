#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/vector_math.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// A running maximum and the sum of exp(x - maximum): both in one pass over a row.
template <typename A>
struct RunningExp {
  A largest = -static_cast<A>(INFINITY);
  A sum = 0;

  __device__ void add(A x) {
    if (x > largest) {
      sum = sum * vec::exp(largest - x) + A(1);
      largest = x;
    } else if (x != -static_cast<A>(INFINITY)) {
      sum += vec::exp(x - largest);  // NaN arrives here and stays
    }
  }
};

// The sum of exp over the group's threads, relative to the largest of all.
template <int kGroup, typename A>
__device__ A log_sum_exp(const RunningExp<A>& own) {
  const A largest = group_reduce<kGroup>(own.largest, Largest{});
  const A share = own.sum == A(0) ? A(0) : own.sum * vec::exp(own.largest - largest);
  const A sum = group_reduce<kGroup>(share, Sum{});
  return largest + log(sum);
}

template <typename A>
struct Smoothing {
  A amount = 0;
  int64_t ignore_index = -100;
};

// One group of threads a row: its log-sum-exp, and its loss: 0 where the label is ignored, NaN
// where the label is none.
template <int kGroup, typename T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(int64_t rows, int64_t classes, Smoothing<acc_t<T>> smoothing,
                         const T* logits, const int64_t* labels, acc_t<T>* lse, acc_t<T>* losses) {
  using A = acc_t<T>;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kGroup;
  if (row >= rows) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const T* x = logits + row * classes;
  RunningExp<A> running;
  A total = 0;
  for (int64_t i = lane; i < classes; i += kGroup) {
    const A value = widen<A>(x[i]);
    running.add(value);
    total += value;
  }
  const A log_sum = log_sum_exp<kGroup>(running);
  total = group_reduce<kGroup>(total, Sum{});
  if (lane != 0) {
    return;
  }
  lse[row] = log_sum;
  const int64_t label = labels[row];
  A loss = 0;
  if (label != smoothing.ignore_index) {
    loss = label < 0 || label >= classes
               ? static_cast<A>(NAN)
               : (A(1) - smoothing.amount) * (log_sum - widen<A>(x[label]));
    if (smoothing.amount > A(0)) {
      loss += smoothing.amount * (log_sum - total / static_cast<A>(classes));
    }
  }
  losses[row] = loss;
}

// How many labels count; every thread of the block gets the result.
__device__ int64_t count_labels(int64_t rows, const int64_t* labels, int64_t ignore_index) {
  int counted = 0;
  for (int64_t r = threadIdx.x; r < rows; r += kThreads) {
    counted += labels[r] != ignore_index ? 1 : 0;
  }
  return group_reduce<kThreads>(counted, Sum{});
}

template <typename A>
__global__ void __launch_bounds__(kThreads)
    mean_loss_kernel(int64_t rows, int64_t ignore_index, const int64_t* labels, const A* losses,
                     A* mean) {
  const int64_t counted = count_labels(rows, labels, ignore_index);
  A sum = 0;
  for (int64_t r = threadIdx.x; r < rows; r += kThreads) {
    sum += losses[r];
  }
  sum = group_reduce<kThreads>(sum, Sum{});
  if (threadIdx.x == 0) {
    *mean = counted == 0 ? A(0) : sum / static_cast<A>(counted);
  }
}

// Few blocks, many rows each, so that counting the labels once a block costs little.
constexpr int64_t kGradientBlocks = 1056;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_grad_kernel(int64_t rows, int64_t classes, Smoothing<acc_t<T>> smoothing,
                              const acc_t<T>* dloss, const T* logits, const int64_t* labels,
                              const acc_t<T>* lse, T* dlogits) {
  using A = acc_t<T>;
  const int64_t counted = count_labels(rows, labels, smoothing.ignore_index);
  const A factor = *dloss / static_cast<A>(counted > 0 ? counted : 1);
  const A elsewhere = smoothing.amount / static_cast<A>(classes);
  const int64_t n = rows * classes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += step) {
    const int64_t row = i / classes;
    const int64_t label = labels[row];
    A d = 0;
    if (label < 0 || label >= classes) {
      d = label == smoothing.ignore_index ? A(0) : static_cast<A>(NAN);
    } else if (label != smoothing.ignore_index) {
      d = vec::exp(widen<A>(logits[i]) - lse[row]) - elsewhere;
      d = factor * (i - row * classes == label ? d - (A(1) - smoothing.amount) : d);
    }
    dlogits[i] = narrow<T>(d);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    square_errors_kernel(int64_t n, const T* x, const T* target, acc_t<T>* partial) {
  using A = acc_t<T>;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kMseChunk;
  const int64_t end = begin + kMseChunk < n ? begin + kMseChunk : n;
  A sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const A d = widen<A>(x[i]) - widen<A>(target[i]);
    sum += d * d;
  }
  sum = group_reduce<kThreads>(sum, Sum{});
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads)
    mean_square_kernel(int64_t n, int64_t chunks, const A* partial, A* mean) {
  A sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kThreads) {
    sum += partial[i];
  }
  sum = group_reduce<kThreads>(sum, Sum{});
  if (threadIdx.x == 0) {
    *mean = n == 0 ? A(0) : sum / static_cast<A>(n);
  }
}

// dx = dloss 2 (x - target) / n.
template <typename T>
struct SquareErrorBackward {
  const acc_t<T>* dloss;
  int64_t n;
  __device__ T operator()(T x, T target) const {
    using A = acc_t<T>;
    const A factor = *dloss * A(2) / static_cast<A>(n);
    return narrow<T>(factor * (widen<A>(x) - widen<A>(target)));
  }
};

// Adds 1 where the label is the first of the largest logits; integers, so the order does not
// matter.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    count_correct_kernel(int64_t rows, int64_t classes, int64_t ignore_index, const T* logits,
                         const int64_t* labels, unsigned long long* correct) {
  using A = acc_t<T>;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  if (row >= rows) {
    return;
  }
  const int64_t label = labels[row];
  if (label == ignore_index || label < 0 || label >= classes) {
    return;
  }
  const T* x = logits + row * classes;
  const A chosen = widen<A>(x[label]);
  bool beaten = chosen != chosen;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) % kWarp; i < classes; i += kWarp) {
    const A value = widen<A>(x[i]);
    beaten = beaten || (i < label ? !(value < chosen) : i > label && !(value <= chosen));
  }
  if (__any_sync(0xffffffffu, beaten) == 0 && threadIdx.x % kWarp == 0) {
    atomicAdd(correct, 1ull);
  }
}

}  // namespace

void cross_entropy_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<CrossEntropyAttrs>();
  const int64_t classes = args.in[0].shape.back();
  const int64_t rows = args.in[1].numel();
  const int64_t* labels = args.in[1].as<int64_t>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const Smoothing<A> smoothing{static_cast<A>(attrs.label_smoothing), attrs.ignore_index};
    expect_workspace(args, rows * static_cast<int64_t>(sizeof(A)));
    A* losses = static_cast<A*>(args.workspace);
    const auto launch = [&]<int kGroup>() {
      cross_entropy_kernel<kGroup, T>
          <<<blocks_for(rows, kThreads / kGroup), kThreads, 0, stream_of(args)>>>(
              rows, classes, smoothing, args.in[0].as<T>(), labels, args.out[1].as<A>(), losses);
      check_launch(args.op);
    };
    if (rows > 0) {
      classes <= 1024 ? launch.template operator()<kWarp>()
                      : launch.template operator()<kThreads>();
    }
    mean_loss_kernel<<<1, kThreads, 0, stream_of(args)>>>(rows, attrs.ignore_index, labels, losses,
                                                          args.out[0].as<A>());
    check_launch(args.op);
  });
}

void cross_entropy_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<CrossEntropyAttrs>();
  const int64_t classes = args.in[1].shape.back();
  const int64_t rows = args.in[2].numel();
  if (rows == 0) {
    return;
  }
  dispatch_floating(args.in[1].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const Smoothing<A> smoothing{static_cast<A>(attrs.label_smoothing), attrs.ignore_index};
    const int64_t blocks = (rows * classes + kThreads - 1) / kThreads;
    cross_entropy_grad_kernel<<<blocks_for(std::min(blocks, kGradientBlocks), 1), kThreads, 0,
                                stream_of(args)>>>(rows, classes, smoothing, args.in[0].as<A>(),
                                                   args.in[1].as<T>(), args.in[2].as<int64_t>(),
                                                   args.in[3].as<A>(), args.out[0].as<T>());
    check_launch(args.op);
  });
}

void mse_cuda(const KernelArgs& args) {
  const int64_t n = args.in[0].numel();
  const int64_t chunks = (n + kMseChunk - 1) / kMseChunk;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    expect_workspace(args, chunks * static_cast<int64_t>(sizeof(A)));
    A* partial = static_cast<A*>(args.workspace);
    if (n > 0) {
      square_errors_kernel<<<blocks_for(chunks, 1), kThreads, 0, stream_of(args)>>>(
          n, args.in[0].as<T>(), args.in[1].as<T>(), partial);
      check_launch(args.op);
    }
    mean_square_kernel<<<1, kThreads, 0, stream_of(args)>>>(n, chunks, partial,
                                                            args.out[0].as<A>());
    check_launch(args.op);
  });
}

void mse_grad_cuda(const KernelArgs& args) {
  const int64_t n = args.in[1].numel();
  dispatch_floating(args.in[1].dtype, args.op, [&]<typename T>() {
    map(args, n, SquareErrorBackward<T>{args.in[0].as<acc_t<T>>(), n}, args.out[0].as<T>(),
        args.in[1].as<T>(), args.in[2].as<T>());
  });
}

void count_correct_cuda(const KernelArgs& args) {
  const int64_t rows = args.in[1].numel();
  auto* correct = args.out[0].as<unsigned long long>();
  cuda_check(cudaMemsetAsync(correct, 0, sizeof(*correct), stream_of(args)), args.op, "clearing");
  if (rows == 0) {
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    count_correct_kernel<<<blocks_for(rows, kThreads / kWarp), kThreads, 0, stream_of(args)>>>(
        rows, args.in[0].shape.back(), args.attr<CountCorrectAttrs>().ignore_index,
        args.in[0].as<T>(), args.in[1].as<int64_t>(), correct);
    check_launch(args.op);
  });
}

}  // namespace lithe
