#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/update_dtypes.h"
#include "tensor/ops/update_sums_cuda.h"

namespace lithe {
namespace {

using namespace device;

struct AdamWTensor {
  int64_t n;
  void* w;
  const void* gradient;
  void* m;
  void* v;
  int64_t* step;
  void* copy;  // null: none
  double weight_decay;
  UpdateSums sums;
};

struct AdamWCommon {
  AdamWAttrs attrs;  // but for the decay, which each tensor has its own
  Scalar lr;
  Scalar grad_scale;
  bool bf16_copies;  // fp16 otherwise
};

// Both conventions are w = (w before - rate m / (sqrt(v) root + eps)) after.
template <typename A>
struct AdamWFactors {
  A rate, root, before, after, scale;
  A beta1, beta2, rest1, rest2, eps;
};

template <typename A>
__device__ AdamWFactors<A> prepare(const AdamWCommon& p, const AdamWTensor& tensor) {
  const int64_t step = steps_before(tensor.step) + 1;
  const double lr = p.lr.value();
  // beta^step by squaring: a few products, where pow() would hold up the whole block.
  double power1 = 1;
  double power2 = 1;
  double square1 = p.attrs.beta1;
  double square2 = p.attrs.beta2;
  for (int64_t rest = step; rest != 0; rest >>= 1) {
    if ((rest & 1) != 0) {
      power1 *= square1;
      power2 *= square2;
    }
    square1 *= square1;
    square2 *= square2;
  }
  const double correction1 = 1 - power1;
  const double root2 = sqrt(1 - power2);
  const double decay = 1 - lr * tensor.weight_decay;
  const bool corrected = p.attrs.epsilon == AdamEpsilon::corrected;
  AdamWFactors<A> f;
  f.rate = static_cast<A>(corrected ? lr / correction1 : lr * root2 / correction1);
  f.root = static_cast<A>(corrected ? 1 / root2 : 1);
  f.before = static_cast<A>(corrected ? decay : 1);
  f.after = static_cast<A>(corrected ? 1 : decay);
  f.scale = static_cast<A>(p.grad_scale.value());
  f.beta1 = static_cast<A>(p.attrs.beta1);
  f.beta2 = static_cast<A>(p.attrs.beta2);
  f.rest1 = static_cast<A>(1 - p.attrs.beta1);
  f.rest2 = static_cast<A>(1 - p.attrs.beta2);
  f.eps = static_cast<A>(p.attrs.eps);
  return f;
}

__device__ inline float root_of(float x) { return sqrtf(x); }
__device__ inline double root_of(double x) { return sqrt(x); }

// The new weights, rounded once more.
template <typename C, typename T, int kVector>
__device__ inline void store_copy(void* to, int64_t i, const Pack<T, kVector>& weights, int count) {
  Pack<C, kVector> copy;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    copy.at[j] = narrow<C>(widen<acc_t<T>>(weights.at[j]));
  }
  store_some(static_cast<C*>(to) + i, copy, count);
}

// One chunk of one tensor.
template <typename T, typename G, bool kMeasured>
class AdamWChunk {
  using A = acc_t<T>;
  static constexpr int kV = kWide<A>;
  static constexpr int kUnroll = 2;
  using Walk = ChunkWalk<kV, kUnroll>;

 public:
  __device__ AdamWChunk(const AdamWCommon& p, const AdamWTensor& tensor, int64_t begin)
      : p_(p),
        tensor_(tensor),
        begin_(begin),
        w_(static_cast<T*>(tensor.w) + begin),
        gradient_(static_cast<const G*>(tensor.gradient) + begin),
        m_(static_cast<A*>(tensor.m) + begin),
        v_(static_cast<A*>(tensor.v) + begin),
        rule_(p.attrs.measures) {}

  // The first operands are on their way while thread 0 prepares the factors.
  template <bool kWhole>
  __device__ ChunkSums run(int count, AdamWFactors<A>& shared) {
    const int batches = kWhole ? static_cast<int>(kUpdateChunk / Walk::kBatch)
                               : (count + Walk::kBatch - 1) / Walk::kBatch;
    ChunkSums sums;
    for (int batch = 0; batch < batches; ++batch) {
      Operands in[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
        in[u] = read(i, Walk::template inside<kWhole>(i, count));
      }
      if (batch == 0) {
        if (threadIdx.x == 0) {
          shared = prepare<A>(p_, tensor_);
        }
        __syncthreads();
        factors_ = shared;
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
        update(in[u], i, Walk::template inside<kWhole>(i, count), sums);
      }
    }
    return sums;
  }

 private:
  struct Operands {
    Pack<G, kV> gradient;
    Pack<A, kV> m;
    Pack<A, kV> v;
    Pack<T, kV> w;
  };

  __device__ Operands read(int i, int inside) const {
    return {load_some<kV>(gradient_ + i, inside), load_some<kV>(m_ + i, inside),
            load_some<kV>(v_ + i, inside), load_some<kV>(w_ + i, inside)};
  }

  __device__ void update(Operands& in, int i, int inside, ChunkSums& sums) const {
    const AdamWFactors<A>& f = factors_;
    A squares = 0;
    Pack<A, kV> before;
    Pack<A, kV> after;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      const A arrived = widen<A>(in.gradient.at[j]);
      const A g = f.scale * arrived;
      in.m.at[j] = f.beta1 * in.m.at[j] + f.rest1 * g;
      in.v.at[j] = f.beta2 * in.v.at[j] + f.rest2 * g * g;
      const A step_size = f.rate * in.m.at[j] / (root_of(in.v.at[j]) * f.root + f.eps);
      before.at[j] = widen<A>(in.w.at[j]);
      after.at[j] = (f.before * before.at[j] - step_size) * f.after;
      in.w.at[j] = narrow<T>(after.at[j]);
      squares += arrived * arrived;
    }
    store_some(m_ + i, in.m, inside);
    store_some(v_ + i, in.v, inside);
    store_some(w_ + i, in.w, inside);
    if constexpr (std::is_same_v<T, float>) {
      if (tensor_.copy != nullptr) {
        p_.bf16_copies ? store_copy<bf16>(tensor_.copy, begin_ + i, in.w, inside)
                       : store_copy<f16>(tensor_.copy, begin_ + i, in.w, inside);
      }
    }
    if constexpr (kMeasured) {
      sums.squares += static_cast<double>(squares);
      if (p_.attrs.measures.change != ChangeMetric::none) {
        measure(before, after, inside, sums);
      }
    }
  }

  __device__ void measure(const Pack<A, kV>& before, const Pack<A, kV>& after, int inside,
                          ChunkSums& sums) const {
    A moved = 0;
    A size = 0;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      if (j < inside) {
        moved += rule_.magnitude(before.at[j] - after.at[j]) / rule_.under(before.at[j]);
        size += rule_.magnitude(before.at[j]);
      }
    }
    sums.moved += static_cast<double>(moved);
    sums.size += static_cast<double>(size);
  }

  const AdamWCommon& p_;
  const AdamWTensor& tensor_;
  int64_t begin_;
  T* w_;
  const G* gradient_;
  A* m_;
  A* v_;
  ChangeRule<A> rule_;
  AdamWFactors<A> factors_;
};

template <typename T, typename G, bool kMeasured, typename Group>
__global__ void __launch_bounds__(kUpdateThreads) adamw_kernel(const __grid_constant__ Group p) {
  __shared__ AdamWFactors<acc_t<T>> factors;
  __shared__ bool shared_last;
  const int index = p.find();
  const AdamWTensor& tensor = p.tensor[index];
  const unsigned chunk = blockIdx.x - p.first[index];
  const int64_t begin = chunk * kUpdateChunk;
  const int64_t rest = tensor.n - begin;
  AdamWChunk<T, G, kMeasured> work(p.common, tensor, begin);
  ChunkSums sums = rest >= kUpdateChunk
                       ? work.template run<true>(static_cast<int>(kUpdateChunk), factors)
                       : work.template run<false>(static_cast<int>(rest), factors);
  if constexpr (kMeasured) {
    sums = block_sums(sums);
  }
  if (threadIdx.x == 0) {
    if constexpr (kMeasured) {
      if (rest > 0) {
        tensor.sums.partial[chunk] = sums;
      }
      __threadfence();  // the sums before the arrival
    }
    shared_last = arrive(tensor.step, p.first[index + 1] - p.first[index]);
  }
  if constexpr (kMeasured) {
    __syncthreads();
    if (shared_last) {
      __threadfence();
      join_sums(tensor.sums, p.common.attrs.measures, tensor.n);
    }
  }
}

bool has_copy(const KernelArgs& args) { return args.in.size() > 7 && args.in[7].data != nullptr; }

// Whether one launch can take both.
bool alike(const KernelArgs& a, const KernelArgs& b) {
  const auto x = a.attr<AdamWAttrs>();
  const auto y = b.attr<AdamWAttrs>();
  return a.in[0].dtype == b.in[0].dtype && a.in[1].dtype == b.in[1].dtype &&
         (!has_copy(a) || !has_copy(b) || a.in[7].dtype == b.in[7].dtype) &&
         has_copy(a) == has_copy(b) && x.beta1 == y.beta1 && x.beta2 == y.beta2 && x.eps == y.eps &&
         x.epsilon == y.epsilon && x.measures == y.measures &&
         Scalar::of(a.in, 5) == Scalar::of(b.in, 5) && Scalar::of(a.in, 6) == Scalar::of(b.in, 6);
}

void launch(std::span<const KernelArgs* const> calls) {
  const KernelArgs& model = *calls.front();
  const AdamWCommon common{.attrs = model.attr<AdamWAttrs>(),
                           .lr = Scalar::of(model.in, 5),
                           .grad_scale = Scalar::of(model.in, 6),
                           .bf16_copies = has_copy(model) && model.in[7].dtype == DType::bf16};
  const UpdateMeasures& measures = common.attrs.measures;
  std::vector<AdamWTensor> tensors;
  for (const KernelArgs* call : calls) {
    tensors.push_back({.n = call->out[0].numel(),
                       .w = call->out[0].data,
                       .gradient = call->in[1].data,
                       .m = call->out[1].data,
                       .v = call->out[2].data,
                       .step = call->out[3].as<int64_t>(),
                       .copy = has_copy(*call) ? call->out[4].data : nullptr,
                       .weight_decay = call->attr<AdamWAttrs>().weight_decay,
                       .sums = sums_of(*call, measures)});
  }
  dispatch_update(model.in[0].dtype, model.in[1].dtype, model.op, [&]<typename T, typename G>() {
    launch_groups(common, tensors, [&]<typename Group>(const Group& group, unsigned blocks) {
      if (measures.any()) {
        adamw_kernel<T, G, true><<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
      } else {
        adamw_kernel<T, G, false><<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
      }
      check_launch(model.op);
    });
  });
}

}  // namespace

void adamw_group_cuda(std::span<const KernelArgs> calls) { for_alike(calls, alike, launch); }
void adamw_cuda(const KernelArgs& args) { adamw_group_cuda({&args, 1}); }

}  // namespace lithe
