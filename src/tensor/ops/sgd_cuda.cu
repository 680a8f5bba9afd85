#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/update_dtypes.h"
#include "tensor/ops/update_sums_cuda.h"

namespace lithe {
namespace {

using namespace device;

struct SgdTensor {
  int64_t n;
  void* w;
  GradientPlace gradient;
  void* velocity;
  int64_t* step;
  double weight_decay;
  ChunkSums* partial;
};

struct SgdCommon {
  SgdAttrs attrs;  // but for the decay, which each tensor has its own
  Scalar lr;
  Scalar grad_scale;
};

// One chunk of one tensor.
template <typename T, typename G, bool kMomentum, bool kMeasured, typename Group>
__global__ void __launch_bounds__(kUpdateThreads) sgd_kernel(const __grid_constant__ Group p) {
  using A = acc_t<T>;
  constexpr int kV = kWide<A>;
  constexpr int kUnroll = 2;
  using Walk = ChunkWalk<kV, kUnroll>;
  const int index = p.find();
  const SgdTensor& tensor = p.tensor[index];
  const SgdAttrs& attrs = p.common.attrs;
  const unsigned chunk = blockIdx.x - p.first[index];
  const int64_t begin = chunk * kUpdateChunk;
  const int64_t rest = tensor.n - begin;
  T* w = static_cast<T*>(tensor.w) + begin;
  A* velocity = static_cast<A*>(tensor.velocity) + (kMomentum ? begin : 0);

  __shared__ bool shared_first;
  if constexpr (kMomentum) {
    if (threadIdx.x == 0) {
      shared_first = steps_before(tensor.step) == 0;
    }
    __syncthreads();
  }
  const bool first = kMomentum && shared_first;
  const A lr = static_cast<A>(p.common.lr.value());
  const A scale = static_cast<A>(p.common.grad_scale.value());
  const A decay = static_cast<A>(tensor.weight_decay);
  const A momentum = static_cast<A>(attrs.momentum);
  // The step is along own g' + along velocity: nesterov's correction, or the velocity alone.
  const A own = attrs.nesterov ? A(1) : A(0);
  const A along = attrs.nesterov ? momentum : A(1);
  const ChangeRule<A> rule(attrs.measures);
  ChunkSums sums;
  const auto run = [&]<bool kWhole>(int count) {
    for (int batch = 0; batch * Walk::kBatch < count; ++batch) {
      Pack<G, kV> arrived[kUnroll];
      Pack<T, kV> weights[kUnroll];
      [[maybe_unused]] Pack<A, kV> velocities[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
        const int inside = Walk::template inside<kWhole>(i, count);
        arrived[u] = load_gradient<kV, G>(tensor.gradient, begin, i, inside);
        weights[u] = load_some<kV>(w + i, inside);
        if constexpr (kMomentum) {
          velocities[u] = load_some<kV>(velocity + i, inside);
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
        const int inside = Walk::template inside<kWhole>(i, count);
        [[maybe_unused]] A squares = 0;
        [[maybe_unused]] A moved = 0;
        [[maybe_unused]] A size = 0;
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          const A raw = widen<A>(arrived[u].at[j]);
          const A old = widen<A>(weights[u].at[j]);
          const A g = scale * raw + decay * old;
          A direction = g;
          if constexpr (kMomentum) {
            A& now = velocities[u].at[j];
            now = first ? g : momentum * now + g;
            direction = own * g + along * now;
          }
          const A updated = old - lr * direction;
          weights[u].at[j] = narrow<T>(updated);
          if constexpr (kMeasured) {
            squares += raw * raw;
            if (j < inside) {
              moved += rule.magnitude(old - updated) / rule.under(old);
              size += rule.magnitude(old);
            }
          }
        }
        if constexpr (kMomentum) {
          store_some(velocity + i, velocities[u], inside);
        }
        store_some(w + i, weights[u], inside);
        if constexpr (kMeasured) {
          sums.add({static_cast<double>(squares), static_cast<double>(moved),
                    static_cast<double>(size)});
        }
      }
    }
  };
  if (rest >= kUpdateChunk) {
    run.template operator()<true>(static_cast<int>(kUpdateChunk));
  } else {
    run.template operator()<false>(static_cast<int>(rest));
  }
  if constexpr (kMeasured) {
    sums = block_sums(sums);
    if (threadIdx.x == 0 && rest > 0) {
      tensor.partial[chunk] = sums;
    }
  }
  if constexpr (kMomentum) {
    if (threadIdx.x == 0) {
      arrive(tensor.step, p.first[index + 1] - p.first[index]);
    }
  }
}

// Whether one launch can take both.
bool alike(const KernelArgs& a, const KernelArgs& b) {
  const auto x = a.attr<SgdAttrs>();
  const auto y = b.attr<SgdAttrs>();
  return a.in[0].dtype == b.in[0].dtype && a.in[1].dtype == b.in[1].dtype &&
         x.momentum == y.momentum && x.nesterov == y.nesterov && x.measures == y.measures &&
         Scalar::of(a.in, 4) == Scalar::of(b.in, 4) && Scalar::of(a.in, 5) == Scalar::of(b.in, 5);
}

void launch(std::span<const KernelArgs* const> calls) {
  const KernelArgs& model = *calls.front();
  const SgdCommon common{.attrs = model.attr<SgdAttrs>(),
                         .lr = Scalar::of(model.in, 4),
                         .grad_scale = Scalar::of(model.in, 5)};
  const UpdateMeasures& measures = common.attrs.measures;
  const bool momentum = common.attrs.momentum != 0;
  std::vector<SgdTensor> tensors;
  std::vector<JoinTensor> joins;
  for (const KernelArgs* call : calls) {
    const UpdateSums sums = sums_of(*call, measures);
    tensors.push_back({.n = call->out[0].numel(),
                       .w = call->out[0].data,
                       .gradient = GradientPlace::of(*call, 1, 6),
                       .velocity = momentum ? call->out[1].data : nullptr,
                       .step = momentum ? call->out[2].as<int64_t>() : nullptr,
                       .weight_decay = call->attr<SgdAttrs>().weight_decay,
                       .partial = sums.partial});
    joins.push_back({tensors.back().n, sums});
  }
  dispatch_update(model.in[0].dtype, model.in[1].dtype, model.op, [&]<typename T, typename G>() {
    launch_groups(common, tensors, [&]<typename Group>(const Group& group, unsigned blocks) {
      const auto run = [&]<bool kMomentum>() {
        if (measures.any()) {
          sgd_kernel<T, G, kMomentum, true><<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
        } else {
          sgd_kernel<T, G, kMomentum, false>
              <<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
        }
        check_launch(model.op);
      };
      momentum ? run.template operator()<true>() : run.template operator()<false>();
    });
  });
  if (measures.any()) {
    launch_joins(model, measures, joins);
  }
}

}  // namespace

void sgd_group_cuda(std::span<const KernelArgs> calls) { for_alike(calls, alike, launch); }
void sgd_cuda(const KernelArgs& args) { sgd_group_cuda({&args, 1}); }

}  // namespace lithe
