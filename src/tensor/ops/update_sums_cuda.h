// What updates measure, on CUDA: sums of chunks in the workspace, joined in order. Device-only.
#pragma once

#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/update_groups_cuda.h"

namespace lithe::device {

// What one tensor's chunks are joined into.
struct UpdateSums {
  ChunkSums* partial;  // by chunk; null: nothing is measured
  void* squares;       // fp32, or fp64 where `wide`; null: not asked for
  void* change;
  bool wide;
};

// The last outputs of an update.
inline UpdateSums sums_of(const KernelArgs& args, const UpdateMeasures& measures) {
  UpdateSums sums{.partial = nullptr,
                  .squares = nullptr,
                  .change = nullptr,
                  .wide = args.in[0].dtype == DType::f64};
  if (!measures.any()) {
    return sums;
  }
  const int64_t bytes = update_chunks(args.in[0].numel()) * static_cast<int64_t>(sizeof(ChunkSums));
  expect_workspace(args, bytes);
  // An empty tensor has no workspace and no chunks, but sums.
  sums.partial = static_cast<ChunkSums*>(args.workspace);
  size_t next = args.out.size();
  if (measures.change != ChangeMetric::none) {
    sums.change = args.out[--next].data;
  }
  if (measures.squares) {
    sums.squares = args.out[--next].data;
  }
  return sums;
}

// Over the block; thread 0 has the result.
__device__ inline ChunkSums block_sums(ChunkSums sums) {
  sums.squares = group_reduce<kUpdateThreads>(sums.squares, Sum{});
  sums.moved = group_reduce<kUpdateThreads>(sums.moved, Sum{});
  sums.size = group_reduce<kUpdateThreads>(sums.size, Sum{});
  return sums;
}

__device__ inline void write_sum(void* to, bool wide, double value) {
  if (to == nullptr) {
    return;
  }
  if (wide) {
    *static_cast<double*>(to) = value;
  } else {
    *static_cast<float*>(to) = static_cast<float>(value);
  }
}

// By a whole block, once all partial sums can be seen.
__device__ inline void join_sums(const UpdateSums& sums, const UpdateMeasures& measures,
                                 int64_t elements) {
  const int64_t chunks = (elements + kUpdateChunk - 1) / kUpdateChunk;
  ChunkSums total;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < chunks; i += kUpdateThreads) {
    // Past the first-level cache, which other multiprocessors do not update.
    total.add({__ldcg(&sums.partial[i].squares), __ldcg(&sums.partial[i].moved),
               __ldcg(&sums.partial[i].size)});
  }
  total = block_sums(total);
  if (threadIdx.x == 0) {
    write_sum(sums.squares, sums.wide, total.squares);
    write_sum(sums.change, sums.wide, change_of(measures, total, elements));
  }
}

// For updates whose last block cannot know that it is the last: one more launch, a block a tensor.
struct JoinTensor {
  int64_t elements;
  UpdateSums sums;
};
struct JoinGroup {
  static constexpr int kMost = 84;
  UpdateMeasures measures;
  JoinTensor tensor[kMost] = {};
};
static_assert(sizeof(JoinGroup) <= kFewArguments);

// Defined in gradient_norm_cuda.cu.
void launch_joins(const KernelArgs& args, const UpdateMeasures& measures,
                  const std::vector<JoinTensor>& tensors);

}  // namespace lithe::device
