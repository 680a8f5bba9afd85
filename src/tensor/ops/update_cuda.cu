#include <type_traits>

#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1024;  // fills the device; each block prepares its factors once

// An fp32 or fp64 scalar in device memory; 1 where there is none.
struct Scalar {
  const void* data = nullptr;
  bool wide = false;
  __device__ double value() const {
    if (data == nullptr) {
      return 1;
    }
    return wide ? *static_cast<const double*>(data)
                : static_cast<double>(*static_cast<const float*>(data));
  }
};
Scalar scalar(const TensorRef& t) { return {t.data, t.dtype == DType::f64}; }

// The step counter is read by all blocks and advanced by the last to arrive. Arrivals are counted
// in its upper bits, which saves a launch and a buffer. Returns the value before; one thread a
// block.
__device__ int64_t advance(int64_t* step) {
  constexpr int kShift = 40;
  auto* counter = reinterpret_cast<unsigned long long*>(step);
  const unsigned long long old = atomicAdd(counter, 1ull << kShift);
  const unsigned long long value = old & ((1ull << kShift) - 1);
  if ((old >> kShift) == gridDim.x - 1) {
    atomicExch(counter, value + 1);
  }
  return static_cast<int64_t>(value);
}

// Calls f(i, count) for the packs of kVector elements of [0, n) that are this thread's; the last
// may be shorter.
template <int kVector, typename F>
__device__ void for_my_packs(int64_t n, F&& f) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kVector;
  int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  for (; i < n; i += step) {
    f(i, n - i < kVector ? static_cast<int>(n - i) : kVector);
  }
}

template <int kVector, typename T>
__device__ inline Pack<T, kVector> load_some(const T* from, int count) {
  if (count == kVector) {
    return load<kVector>(from);
  }
  Pack<T, kVector> out{};
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (j < count) {
      out.at[j] = from[j];
    }
  }
  return out;
}
template <int kVector, typename T>
__device__ inline void store_some(T* to, const Pack<T, kVector>& pack, int count) {
  if (count == kVector) {
    store(to, pack);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (j < count) {
      to[j] = pack.at[j];
    }
  }
}

template <typename T, typename G>
struct AdamW {
  AdamWAttrs attrs;
  int64_t n;
  T* w;
  const G* gradient;
  acc_t<T>* m;
  acc_t<T>* v;
  int64_t* step;
  Scalar lr;
  Scalar grad_scale;
  // The weight's copy, of at most one dtype; null: none.
  bf16* copy_bf16;
  f16* copy_f16;
};

// Both conventions are w = (w before - rate m / (sqrt(v) root + eps)) after.
template <typename A>
struct AdamWFactors {
  A rate, root, before, after, scale;
};

template <typename A, typename T, typename G>
__device__ AdamWFactors<A> prepare(const AdamW<T, G>& p) {
  const auto step = static_cast<double>(advance(p.step) + 1);
  const double lr = p.lr.value();
  const double correction1 = 1 - pow(p.attrs.beta1, step);
  const double root2 = sqrt(1 - pow(p.attrs.beta2, step));
  const double decay = 1 - lr * p.attrs.weight_decay;
  const bool corrected = p.attrs.epsilon == AdamEpsilon::corrected;
  AdamWFactors<A> f;
  f.rate = static_cast<A>(corrected ? lr / correction1 : lr * root2 / correction1);
  f.root = static_cast<A>(corrected ? 1 / root2 : 1);
  f.before = static_cast<A>(corrected ? decay : 1);
  f.after = static_cast<A>(corrected ? 1 : decay);
  f.scale = static_cast<A>(p.grad_scale.value());
  return f;
}

__device__ inline float root_of(float x) { return sqrtf(x); }
__device__ inline double root_of(double x) { return sqrt(x); }

// The new weights, rounded once more; nothing where there is no copy.
template <typename C, typename T, int kVector>
__device__ inline void store_copy(C* to, int64_t i, const Pack<T, kVector>& weights, int count) {
  if (to == nullptr) {
    return;
  }
  Pack<C, kVector> copy{};
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    copy.at[j] = narrow<C>(widen<acc_t<T>>(weights.at[j]));
  }
  store_some(to + i, copy, count);
}

template <typename T, typename G>
__global__ void __launch_bounds__(kThreads) adamw_kernel(const AdamW<T, G> p) {
  using A = acc_t<T>;
  constexpr int kV = kWide<A>;
  __shared__ AdamWFactors<A> shared;
  if (threadIdx.x == 0) {
    shared = prepare<A>(p);
  }
  __syncthreads();
  const AdamWFactors<A> f = shared;
  const A beta1 = static_cast<A>(p.attrs.beta1);
  const A beta2 = static_cast<A>(p.attrs.beta2);
  const A rest1 = static_cast<A>(1 - p.attrs.beta1);
  const A rest2 = static_cast<A>(1 - p.attrs.beta2);
  const A eps = static_cast<A>(p.attrs.eps);
  for_my_packs<kV>(p.n, [&](int64_t i, int count) {
    const Pack<G, kV> gradient = load_some<kV>(p.gradient + i, count);
    Pack<A, kV> m = load_some<kV>(p.m + i, count);
    Pack<A, kV> v = load_some<kV>(p.v + i, count);
    Pack<T, kV> w = load_some<kV>(p.w + i, count);
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      const A g = f.scale * widen<A>(gradient.at[j]);
      m.at[j] = beta1 * m.at[j] + rest1 * g;
      v.at[j] = beta2 * v.at[j] + rest2 * g * g;
      const A step_size = f.rate * m.at[j] / (root_of(v.at[j]) * f.root + eps);
      w.at[j] = narrow<T>((f.before * widen<A>(w.at[j]) - step_size) * f.after);
    }
    store_some(p.m + i, m, count);
    store_some(p.v + i, v, count);
    store_some(p.w + i, w, count);
    store_copy(p.copy_bf16, i, w, count);
    store_copy(p.copy_f16, i, w, count);
  });
}

template <typename T, typename G>
struct Sgd {
  SgdAttrs attrs;
  int64_t n;
  T* w;
  const G* gradient;
  acc_t<T>* velocity;  // null: no momentum
  int64_t* step;
  Scalar lr;
  Scalar grad_scale;
};

template <typename T, typename G>
__global__ void __launch_bounds__(kThreads) sgd_kernel(const Sgd<T, G> p) {
  using A = acc_t<T>;
  constexpr int kV = kWide<A>;
  __shared__ bool shared_first;
  if (threadIdx.x == 0) {
    shared_first = p.velocity != nullptr && advance(p.step) == 0;
  }
  __syncthreads();
  const bool first = shared_first;
  const A lr = static_cast<A>(p.lr.value());
  const A scale = static_cast<A>(p.grad_scale.value());
  const A decay = static_cast<A>(p.attrs.weight_decay);
  const A momentum = static_cast<A>(p.attrs.momentum);
  // The step is along own g' + along velocity: nesterov's correction, or the velocity alone.
  const A own = p.attrs.nesterov ? A(1) : A(0);
  const A along = p.attrs.nesterov ? momentum : A(1);
  for_my_packs<kV>(p.n, [&](int64_t i, int count) {
    const Pack<G, kV> gradient = load_some<kV>(p.gradient + i, count);
    Pack<T, kV> w = load_some<kV>(p.w + i, count);
    Pack<A, kV> velocity{};
    if (p.velocity != nullptr) {
      velocity = load_some<kV>(p.velocity + i, count);
    }
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      const A old = widen<A>(w.at[j]);
      const A g = scale * widen<A>(gradient.at[j]) + decay * old;
      A direction = g;
      if (p.velocity != nullptr) {
        velocity.at[j] = first ? g : momentum * velocity.at[j] + g;
        direction = own * g + along * velocity.at[j];
      }
      w.at[j] = narrow<T>(old - lr * direction);
    }
    if (p.velocity != nullptr) {
      store_some(p.velocity + i, velocity, count);
    }
    store_some(p.w + i, w, count);
  });
}

template <typename S, typename T>
struct Accumulate {
  __device__ S operator()(S sum, T x) const {
    using A = acc_t<T>;
    return narrow<S>(widen<A>(sum) + widen<A>(x));
  }
};

unsigned update_blocks(int64_t n, int vector) {
  const int64_t packs = (n + vector - 1) / vector;
  const int64_t blocks = (packs + kThreads - 1) / kThreads;
  // One block for an empty tensor too: its step counts.
  return static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, kMostBlocks));
}

// Calls f.operator()<T, G>(): G is T, or float for what was widened to fp32, or 16 bits beside fp32
// (see the shape rules).
template <typename F>
void dispatch_pair(DType wide, DType narrow_type, std::string_view where, F&& f) {
  dispatch_floating(wide, where, [&]<typename T>() {
    if (narrow_type == dtype_of<T>::value) {
      f.template operator()<T, T>();
      return;
    }
    if constexpr (is_half_v<T>) {
      if (narrow_type == DType::f32) {
        f.template operator()<T, float>();
        return;
      }
    }
    if constexpr (std::is_same_v<T, float>) {
      if (narrow_type == DType::bf16) {
        f.template operator()<float, bf16>();
        return;
      }
      if (narrow_type == DType::f16) {
        f.template operator()<float, f16>();
        return;
      }
    }
    throw ShapeError(where, "has no kernel for a {} tensor and a {} gradient; cast the gradient",
                     dtype_name(wide), dtype_name(narrow_type));
  });
}

// The sum of squares of chunk `blockIdx.x`, in fp64.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    square_chunks_kernel(int64_t n, const T* x, double* partial) {
  constexpr int kV = kWide<T>;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSumSquaresChunk;
  const int64_t end = begin + kSumSquaresChunk < n ? begin + kSumSquaresChunk : n;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin + int64_t{threadIdx.x} * kV; i < end; i += kThreads * kV) {
    const Pack<T, kV> pack = load_some<kV>(x + i, end - i < kV ? static_cast<int>(end - i) : kV);
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      const auto value = static_cast<double>(widen<acc_t<T>>(pack.at[j]));
      sum += value * value;
    }
  }
  sum = group_reduce<kThreads>(sum, Sum{});
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads)
    join_squares_kernel(int64_t chunks, const double* partial, A* total) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kThreads) {
    sum += partial[i];
  }
  sum = group_reduce<kThreads>(sum, Sum{});
  if (threadIdx.x == 0) {
    *total = static_cast<A>(sum);
  }
}

// As many sums of squares as one launch takes. Between launches the running sum travels in the two
// fp32 outputs, as a rounded value and its remainder.
struct ClipInputs {
  static constexpr int kMost = 200;
  Scalar sums[kMost];
  int count = 0;
};

__global__ void __launch_bounds__(kWarp) clip_kernel(const ClipInputs in, bool starts, bool ends,
                                                     double max_norm, float* norm, float* factor) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < in.count; i += kWarp) {
    sum += in.sums[i].value();
  }
  sum = warp_reduce(sum, Sum{});
  if (threadIdx.x != 0) {
    return;
  }
  if (!starts) {
    sum += static_cast<double>(*norm) + static_cast<double>(*factor);
  }
  if (ends) {
    const double root = sqrt(sum);
    const double ratio = max_norm / (root + 1e-6);
    *norm = static_cast<float>(root);
    *factor = static_cast<float>(ratio > 1 ? 1 : ratio);  // NaN passes
  } else {
    *norm = static_cast<float>(sum);
    *factor = static_cast<float>(sum - static_cast<double>(*norm));
  }
}

}  // namespace

void adamw_cuda(const KernelArgs& args) {
  dispatch_pair(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    const TensorRef* copy = args.out.size() > 4 ? &args.out[4] : nullptr;
    const AdamW<T, G> p{
        .attrs = args.attr<AdamWAttrs>(),
        .n = args.out[0].numel(),
        .w = args.out[0].as<T>(),
        .gradient = args.in[1].as<G>(),
        .m = args.out[1].as<acc_t<T>>(),
        .v = args.out[2].as<acc_t<T>>(),
        .step = args.out[3].as<int64_t>(),
        .lr = scalar(args.in[5]),
        .grad_scale = args.in.size() > 6 ? scalar(args.in[6]) : Scalar{},
        .copy_bf16 = copy != nullptr && copy->dtype == DType::bf16 ? copy->as<bf16>() : nullptr,
        .copy_f16 = copy != nullptr && copy->dtype == DType::f16 ? copy->as<f16>() : nullptr};
    adamw_kernel<<<update_blocks(p.n, kWide<acc_t<T>>), kThreads, 0, stream_of(args)>>>(p);
    check_launch(args.op);
  });
}

void sgd_cuda(const KernelArgs& args) {
  dispatch_pair(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    const bool momentum = args.attr<SgdAttrs>().momentum != 0;
    const Sgd<T, G> p{.attrs = args.attr<SgdAttrs>(),
                      .n = args.out[0].numel(),
                      .w = args.out[0].as<T>(),
                      .gradient = args.in[1].as<G>(),
                      .velocity = momentum ? args.out[1].as<acc_t<T>>() : nullptr,
                      .step = momentum ? args.out[2].as<int64_t>() : nullptr,
                      .lr = scalar(args.in[4]),
                      .grad_scale = args.in.size() > 5 ? scalar(args.in[5]) : Scalar{}};
    sgd_kernel<<<update_blocks(p.n, kWide<acc_t<T>>), kThreads, 0, stream_of(args)>>>(p);
    check_launch(args.op);
  });
}

void accumulate_cuda(const KernelArgs& args) {
  const TensorRef& sum = args.out[0];
  // Here the sum may be the wider one.
  dispatch_pair(args.in[1].dtype, sum.dtype, args.op, [&]<typename T, typename S>() {
    map(args, sum.numel(), Accumulate<S, T>{}, sum.as<S>(), sum.as<S>(), args.in[1].as<T>());
  });
}

void assign_cuda(const KernelArgs& args) {
  const KernelArgs as_cast{.op = args.op,
                           .in = args.in.subspan(1),
                           .out = args.out,
                           .attrs = args.attrs,
                           .stream = args.stream};
  cast_cuda(as_cast);
}

void clear_cuda(const KernelArgs& args) {
  const TensorRef& slot = args.out[0];
  cuda_check(cudaMemsetAsync(slot.data, 0, static_cast<size_t>(slot.bytes()), stream_of(args)),
             args.op, "clearing");
}

void sum_squares_cuda(const KernelArgs& args) {
  const int64_t n = args.in[0].numel();
  const int64_t chunks = (n + kSumSquaresChunk - 1) / kSumSquaresChunk;
  expect_workspace(args, chunks * static_cast<int64_t>(sizeof(double)));
  auto* partial = static_cast<double*>(args.workspace);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    if (chunks > 0) {
      square_chunks_kernel<<<blocks_for(chunks, 1), kThreads, 0, stream_of(args)>>>(
          n, args.in[0].as<T>(), partial);
      check_launch(args.op);
    }
    join_squares_kernel<<<1, kThreads, 0, stream_of(args)>>>(chunks, partial,
                                                             args.out[0].as<acc_t<T>>());
    check_launch(args.op);
  });
}

void clip_factor_cuda(const KernelArgs& args) {
  const double max_norm = args.attr<ClipAttrs>().max_norm;
  const size_t count = args.in.size();
  for (size_t begin = 0; begin < count; begin += ClipInputs::kMost) {
    const size_t end = std::min(begin + ClipInputs::kMost, count);
    ClipInputs in;
    for (size_t i = begin; i < end; ++i) {
      in.sums[in.count++] = scalar(args.in[i]);
    }
    clip_kernel<<<1, kWarp, 0, stream_of(args)>>>(in, begin == 0, end == count, max_norm,
                                                  args.out[0].as<float>(), args.out[1].as<float>());
    check_launch(args.op);
  }
}

}  // namespace lithe
