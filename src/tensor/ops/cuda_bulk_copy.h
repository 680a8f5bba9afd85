// Hopper's copy engine (PTX ISA: cp.async.bulk.tensor, mbarrier): boxes of a matrix come into
// shared memory as tiles for the warpgroup's products, and count on a barrier when they are there.
// Device-only.
#pragma once

#include <cuda.h>

#include "tensor/core/cuda_check.h"
#include "tensor/ops/cuda_warpgroup.h"

namespace lithe::device {

// ---- barriers in shared memory: a phase is over when `count` have arrived and the bytes expected

__device__ inline void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
// After the barriers of a cluster are made, before its blocks meet.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the barrier that block `rank` of the cluster has in the same place. Orders what the products
// have read, not memory of the whole device, for which the thread would have to wait.
__device__ inline void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1; "
      "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Until the phase of this parity is over.
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "WAIT: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE: }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- clusters

__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline void cluster_meet() {
  asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
}

// ---- copies

// The box at (column, row) of a matrix to `to`; elements outside of it are zeros.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& matrix, uint32_t barrier,
                                int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(to),
      "l"(&matrix), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
// To the same place in the blocks of the cluster that `blocks` has bits of, on their barriers.
__device__ inline void copy_box_to_all(uint32_t to, const CUtensorMap& matrix, uint32_t barrier,
                                       int column, int row, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
      "cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(&matrix), "r"(barrier), "r"(column), "r"(row), "h"(blocks)
      : "memory");
}

// ---- registers: a warpgroup gives some back or takes more, within what the block was given

template <int kRegisters>
__device__ inline void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- the host's side

// A row-major matrix of 16-bit elements, `stride` elements from row to row, in boxes of `box_rows`
// rows by 64 columns, which become tiles (cuda_warpgroup.h).
inline CUtensorMap tensor_map(const void* data, bool is_bf16, int64_t rows, int64_t columns,
                              int64_t stride, int box_rows, std::string_view op) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [&] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                cudaEnableDefault, &result),
               op, "looking for tensor maps");
    return reinterpret_cast<Encode>(found);
  }();
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[2] = {kTileColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult made =
      encode(&map, is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
             const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (made != CUDA_SUCCESS) {
    throw DeviceError(op, "no tensor map of a matrix [{}, {}]: error {} of the driver", rows,
                      columns, static_cast<int>(made));
  }
  return map;
}

}  // namespace lithe::device
