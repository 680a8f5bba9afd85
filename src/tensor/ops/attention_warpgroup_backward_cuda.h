// Attention's backward pass in 16 bits for head dims up to 64 on warpgroups. Two kernels, each with
// its sums in registers from first to last, so that no order of blocks can show: one holds queries
// and gives dq, one holds keys and gives dk and dv. The scores are computed in both. Device-only.
#pragma once

#include <cstddef>

#include "tensor/ops/attention_backward_launch_cuda.h"
#include "tensor/ops/attention_warpgroup_key_gradient_cuda.h"

namespace lithe::attention_cuda_kernels {

template <typename Kernel>
__global__ void __launch_bounds__(kWarpgroupThreads, Kernel::kResident)
    warpgroup_backward_kernel(const WarpgroupBackwardParams<typename Kernel::T> params) {
  Kernel{params}.run();
}

template <typename T, bool kDrops>
void launch_warpgroup_kernels(const KernelArgs& args, WarpgroupBackwardParams<T>& params) {
  const Geometry& geometry = params.geometry;
  const auto take_queries = [&]<bool kDerives>() {
    using Kernel = WarpgroupQueryGradient<T, kDrops, kDerives>;
    params.tasks = query_tasks(args, geometry);
    device::launch_shared(args, warpgroup_backward_kernel<Kernel>,
                          running_blocks<Kernel>(params.tasks), kWarpgroupThreads,
                          Kernel::kSharedBytes, params);
  };
  if (params.out == nullptr) {  // whether dq is asked for or not
    take_queries.template operator()<true>();
  } else if (params.to.dq != nullptr) {
    take_queries.template operator()<false>();
  } else {
    launch_statistics<T>(args, geometry, params.statistics, params.padded_queries);
  }
  if (params.to.dk != nullptr || params.to.dv != nullptr) {
    using Kernel = WarpgroupKeyGradient<T, kDrops>;
    const int64_t heads = args.in[1].shape[0] * geometry.kv_heads;
    const int64_t tasks = heads * ((geometry.keys + kTileRows - 1) / kTileRows);
    params.tasks = static_cast<int>(device::blocks_for(tasks, 1));
    device::launch_shared(args, warpgroup_backward_kernel<Kernel>,
                          running_blocks<Kernel>(params.tasks), kWarpgroupThreads,
                          Kernel::kSharedBytes, params);
  }
}

template <typename T>
void launch_warpgroup_backward(const KernelArgs& args, const Geometry& geometry) {
  const Shape& q = args.in[0].shape;
  const Shape& k = args.in[1].shape;
  const AttentionGradients<T> to(args);
  const bool drops = geometry.dropout.rng != nullptr;
  const bool queries_first = to.dq != nullptr || args.in[3].data == nullptr;
  const bool shares_masks = drops && queries_first && (to.dk != nullptr || to.dv != nullptr);
  const bool sums_biases = args.attr<AttentionGradAttrs>().bias_sums;
  const int64_t mask_bytes = attention_blocks::mask_bytes(q, k, shares_masks);
  const int64_t statistics_bytes = attention_blocks::statistics_bytes(q);
  device::expect_workspace(
      args, statistics_bytes + mask_bytes + attention_blocks::bias_sums_bytes(q, sums_biases));
  auto* const masks = static_cast<std::byte*>(args.workspace) + statistics_bytes;
  auto* const bias_sums = reinterpret_cast<float*>(masks + mask_bytes);
  WarpgroupBackwardParams<T> params{
      .geometry = geometry,
      .q = args.in[0].as<const T>(),
      .k = args.in[1].as<const T>(),
      .v = args.in[2].as<const T>(),
      .out = args.in[3].as<const T>(),
      .lse = args.in[4].as<const float>(),
      .dout = args.in[5].as<const T>(),
      .to = to,
      .scale = static_cast<float>(geometry.scale * kLog2E),
      .kept_scale = static_cast<float>(geometry.dropout.kept_scale),
      .statistics = static_cast<float2*>(args.workspace),
      .masks = shares_masks ? reinterpret_cast<uint32_t*>(masks) : nullptr,
      .bias_sums = sums_biases ? bias_sums : nullptr,
      .key_tiles = static_cast<int>((k[1] + kTileRows - 1) / kTileRows),
      .padded_queries = static_cast<int>(attention_blocks::padded_queries(q))};
  if (drops) {
    launch_warpgroup_kernels<T, true>(args, params);
  } else {
    launch_warpgroup_kernels<T, false>(args, params);
  }
  if (sums_biases) {
    join_bias_sums(args, attention_blocks::bias_sum_rows(q), bias_sums);
  }
}

}  // namespace lithe::attention_cuda_kernels
