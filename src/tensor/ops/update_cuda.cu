// Slots written element by element: gradient accumulation, assignment, clearing.
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/update_dtypes.h"
#include "tensor/ops/update_groups_cuda.h"

namespace lithe {
namespace {

using namespace device;

struct SlotTensor {
  int64_t n;
  void* slot;
  const void* value;  // clear: none
};
struct SlotCommon {};

// What becomes of an element S of the slot and T of the value.
struct Accumulate {
  static constexpr bool kReadsSlot = true;
  template <typename S, typename T>
  __device__ static S of(S sum, T x) {
    using A = acc_t<T>;
    return narrow<S>(widen<A>(sum) + widen<A>(x));
  }
};
struct Assign {
  static constexpr bool kReadsSlot = false;
  template <typename S, typename T>
  __device__ static S of(S, T x) {
    return narrow<S>(widen<acc_t<T>>(x));
  }
};

// One chunk of one tensor; the narrower type moves 16 bytes at a time.
template <typename F, typename S, typename T, typename Group>
__global__ void __launch_bounds__(kUpdateThreads) slot_kernel(const __grid_constant__ Group p) {
  constexpr int kV = std::max(kWide<S>, kWide<T>);
  constexpr int kUnroll = 2;
  using Walk = ChunkWalk<kV, kUnroll>;
  const int index = p.find();
  const SlotTensor& tensor = p.tensor[index];
  const int64_t begin = (blockIdx.x - p.first[index]) * kUpdateChunk;
  const int64_t rest = tensor.n - begin;
  S* slot = static_cast<S*>(tensor.slot) + begin;
  const T* value = static_cast<const T*>(tensor.value) + begin;
  const auto run = [&]<bool kWhole>(int count) {
    for (int batch = 0; batch * Walk::kBatch < count; ++batch) {
      Pack<S, kV> to[kUnroll];
      Pack<T, kV> from[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
        const int inside = Walk::template inside<kWhole>(i, count);
        from[u] = load_some<kV>(value + i, inside);
        if constexpr (F::kReadsSlot) {
          to[u] = load_some<kV>(slot + i, inside);
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          to[u].at[j] = F::of(to[u].at[j], from[u].at[j]);
        }
        store_some(slot + i, to[u], Walk::template inside<kWhole>(i, count));
      }
    }
  };
  if (rest >= kUpdateChunk) {
    run.template operator()<true>(static_cast<int>(kUpdateChunk));
  } else {
    run.template operator()<false>(static_cast<int>(rest));
  }
}

template <typename F, typename S, typename T>
void launch(std::span<const KernelArgs* const> calls) {
  const KernelArgs& model = *calls.front();
  std::vector<SlotTensor> tensors;
  for (const KernelArgs* call : calls) {
    if (call->out[0].numel() > 0) {
      tensors.push_back({call->out[0].numel(), call->out[0].data, call->in[1].data});
    }
  }
  launch_groups_of<kFewArguments>(SlotCommon{}, std::span<const SlotTensor>(tensors),
                                  [&]<typename Group>(const Group& group, unsigned blocks) {
                                    slot_kernel<F, S, T>
                                        <<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
                                    check_launch(model.op);
                                  });
}

bool same_dtypes(const KernelArgs& a, const KernelArgs& b) {
  return a.in[0].dtype == b.in[0].dtype && a.in[1].dtype == b.in[1].dtype;
}

}  // namespace

void accumulate_group_cuda(std::span<const KernelArgs> calls) {
  for_alike(calls, same_dtypes, [](std::span<const KernelArgs* const> alike) {
    const KernelArgs& model = *alike.front();
    // Here the slot may be the wider one.
    dispatch_update(model.in[1].dtype, model.in[0].dtype, model.op,
                    [&]<typename T, typename S>() { launch<Accumulate, S, T>(alike); });
  });
}
void accumulate_cuda(const KernelArgs& args) { accumulate_group_cuda({&args, 1}); }

void assign_group_cuda(std::span<const KernelArgs> calls) {
  for_alike(calls, same_dtypes, [](std::span<const KernelArgs* const> alike) {
    const KernelArgs& model = *alike.front();
    dispatch_floating(model.in[0].dtype, model.op, [&]<typename S>() {
      dispatch_floating(model.in[1].dtype, model.op,
                        [&]<typename T>() { launch<Assign, S, T>(alike); });
    });
  });
}
void assign_cuda(const KernelArgs& args) { assign_group_cuda({&args, 1}); }

void clear_cuda(const KernelArgs& args) {
  const TensorRef& slot = args.out[0];
  cuda_check(cudaMemsetAsync(slot.data, 0, static_cast<size_t>(slot.bytes()), stream_of(args)),
             args.op, "clearing");
}

}  // namespace lithe
