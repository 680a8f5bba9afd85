#include "tensor/ops/adamw_cuda.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/update_dtypes.h"

namespace lithe {
namespace {

using namespace device;

__device__ inline float root_of(float x) { return sqrtf(x); }
__device__ inline double root_of(double x) { return sqrt(x); }

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
        if (factors_.stays) {
          return sums;
        }
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
    return {p_.attrs.no_gradient ? Pack<G, kV>{}
                                 : load_gradient<kV, G>(tensor_.gradient, begin_, i, inside),
            load_some<kV>(m_ + i, inside), load_some<kV>(v_ + i, inside),
            load_some<kV>(w_ + i, inside)};
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
    store_copies(p_, tensor_, begin_ + i, in.w, inside);
    if constexpr (kMeasured) {
      sums.squares += static_cast<double>(squares);
      if (p_.attrs.measures.change != ChangeMetric::none) {
        measure_change(rule_, before, after, inside, sums);
      }
    }
  }

  const AdamWCommon& p_;
  const AdamWTensor& tensor_;
  int64_t begin_;
  T* w_;
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
  const ChunkSums sums = rest >= kUpdateChunk
                             ? work.template run<true>(static_cast<int>(kUpdateChunk), factors)
                             : work.template run<false>(static_cast<int>(rest), factors);
  finish_chunk<kMeasured>(p.common, tensor, chunk, p.first[index + 1] - p.first[index], sums,
                          shared_last);
}

// The dtype of the gradients, of none that of the weight.
DType gradient_dtype(const KernelArgs& args) {
  return args.attr<AdamWAttrs>().no_gradient ? args.in[0].dtype : args.in[1].dtype;
}
bool has_copy(const KernelArgs& args) { return args.in.size() > 7 && args.in[7].data != nullptr; }

// Whether one launch can take both.
bool alike(const KernelArgs& a, const KernelArgs& b) {
  const auto x = a.attr<AdamWAttrs>();
  const auto y = b.attr<AdamWAttrs>();
  return a.in[0].dtype == b.in[0].dtype && gradient_dtype(a) == gradient_dtype(b) &&
         a.in[2].dtype == b.in[2].dtype && x.no_gradient == y.no_gradient &&
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
                       .gradient = GradientPlace::of(*call, 1, 8),
                       .m = call->out[1].data,
                       .v = call->out[2].data,
                       .step = call->out[3].as<int64_t>(),
                       .copy = has_copy(*call) ? call->out[4].data : nullptr,
                       .weight_decay = call->attr<AdamWAttrs>().weight_decay,
                       .sums = sums_of(*call, measures)});
  }
  if (model.in[2].dtype == DType::u8) {
    launch_adamw_blocks(model, common, tensors);
    return;
  }
  dispatch_update(
      model.in[0].dtype, gradient_dtype(model), model.op, [&]<typename T, typename G>() {
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
