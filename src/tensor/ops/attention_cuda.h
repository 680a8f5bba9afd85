// What the CUDA kernels of attention share: operands, visibility, copies of tiles.
// Device-only.
#pragma once

#include "tensor/core/tensor.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_blocks.h"
#include "tensor/ops/attention_dropout_cuda.h"
#include "tensor/ops/attention_gradients.h"
#include "tensor/ops/cuda_launch.h"
#include "tensor/ops/cuda_tile_product.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe::attention_cuda_kernels {

using device::padded_row;

extern __shared__ uint4 shared_memory[];

inline constexpr double kLog2E = 1.4426950408889634;

// q [B, T, N, D]; k, v [B, S, K, D].
struct Geometry {
  int queries = 0, keys = 0;
  int heads = 0, kv_heads = 0;
  int dim = 0;
  double scale = 1;
  bool causal = false;
  const bool* key_mask = nullptr;  // [B, S]
  Dropout dropout{};

  __host__ __device__ int group() const { return heads / kv_heads; }
  // Keys [0, n) are visible to query t as far as causality goes.
  __host__ __device__ int visible(int t) const {
    const int n = t + keys - queries + 1;
    return causal ? (n < 0 ? 0 : (n > keys ? keys : n)) : keys;
  }
  // Of an element [b, t, head, 0] of q, or [b, s, kv_head, 0] of k.
  __host__ __device__ int64_t query_at(int64_t b, int64_t t, int64_t head) const {
    return ((b * queries + t) * heads + head) * dim;
  }
  __host__ __device__ int64_t key_at(int64_t b, int64_t s, int64_t kv_head) const {
    return ((b * keys + s) * kv_heads + kv_head) * dim;
  }
  // The same of gradients, whose rows of all heads may lie further apart.
  __host__ __device__ int64_t query_at(int64_t b, int64_t t, int64_t head, int64_t row) const {
    return (b * queries + t) * row + head * dim;
  }
  __host__ __device__ int64_t key_at(int64_t b, int64_t s, int64_t kv_head, int64_t row) const {
    return (b * keys + s) * row + kv_head * dim;
  }
  // Dropout's block of the probabilities [b, head, t, s] to s + 15, s a multiple of sixteen.
  __host__ __device__ uint64_t block_at(int64_t b, int64_t head, int64_t t, int s) const {
    const int64_t row = (b * heads + head) * queries + t;
    return static_cast<uint64_t>(row * probability_blocks(keys) + s / kProbabilityLanes);
  }
  __device__ bool keeps(const Draw& draw, int64_t b, int64_t head, int64_t t, int s) const {
    return draw.keeps(block_at(b, head, t, s), s % kProbabilityLanes);
  }
  // Not 0: the mask, if any, leaves key s visible. A byte as it is loaded: as a boolean, the
  // compiler would wait for it at once.
  __device__ uint32_t sees(int64_t b, int s) const {
    return s >= keys             ? 0u
           : key_mask == nullptr ? 1u
                                 : reinterpret_cast<const uint8_t*>(key_mask)[b * keys + s];
  }
};

// Of the four lanes that share a row of a fragment.
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Throws ShapeError where a kernel's 32-bit sizes do not reach.
Geometry geometry_of(const KernelArgs& args, const AttentionAttrs& attrs, size_t mask, size_t rng);

// kRows rows of `dim` elements, `stride` apart, into a tile of rows of kDim elements, by kThreads
// threads; zeros behind `rows` and `dim`. Asynchronous.
template <int kRows, int kDim, int kThreads, typename T>
__device__ inline void copy_tile(T* tile, const T* from, int64_t stride, int rows, int dim) {
  constexpr int kChunk = device::kWide<T>;
  constexpr int kChunks = kDim / kChunk;
  constexpr int kAll = kRows * kChunks;
#pragma unroll
  for (int first = 0; first < kAll; first += kThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    if (kAll % kThreads == 0 || i < kAll) {
      const int row = i / kChunks;
      const int column = i % kChunks * kChunk;
      const bool is_real = row < rows && column < dim;
      device::copy_async(tile + row * padded_row<T>(kDim) + column,
                         is_real ? from + row * stride + column : from, is_real);
    }
  }
}

// q, k or v as it is, for the kernels with tiles of padded rows. Positions are elements.
template <typename T_>
struct PlainRows {
  using T = T_;
  static constexpr bool kDecodes = false;
  const T* data = nullptr;

  template <int kRows, int kDim, int kThreads>
  __device__ void copy(T* tile, int64_t at, int64_t stride, int rows, int dim) const {
    copy_tile<kRows, kDim, kThreads>(tile, data + at, stride, rows, dim);
  }
  template <int kRows, int kDim, int kThreads>
  __device__ void decode(T*, int64_t, int64_t) const {}
};

// The first `rows` rows of a warp's part of a tile, back to memory.
template <int kRows, int kDim, typename T>
__device__ inline void store_tile(T* to, const T* tile, int64_t stride, int rows, int dim) {
  constexpr int kChunk = device::kWide<T>;
  constexpr int kChunks = kDim / kChunk;
  for (int i = static_cast<int>(threadIdx.x % 32); i < kRows * kChunks; i += 32) {
    const int row = i / kChunks;
    const int column = i % kChunks * kChunk;
    if (row < rows && column < dim) {
      device::store(to + row * stride + column,
                    device::load<kChunk>(tile + row * padded_row<T>(kDim) + column));
    }
  }
}

// A warp's sums [16, kDim], times `factor`, as rows of a tile.
template <typename Product, int kDim>
__device__ inline void sums_to_tile(typename Product::Element* tile, const float (*sums)[4],
                                    float upper_factor, float lower_factor) {
  using T = typename Product::Element;
  const int lane = static_cast<int>(threadIdx.x % 32);
  T* at = tile + lane / 4 * padded_row<T>(kDim) + lane % 4 * 2;
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    Product::store_pair(at + n * 8, sums[n][0] * upper_factor, sums[n][1] * upper_factor);
    Product::store_pair(at + 8 * padded_row<T>(kDim) + n * 8, sums[n][2] * lower_factor,
                        sums[n][3] * lower_factor);
  }
}

// Kernels on tensor cores: attention_half_cuda.cu (bf16, fp16), attention_single_cuda.cu (fp32,
// with TF32 operands or exact), and their _grad_ twins.
void forward_half(const KernelArgs& args, const Geometry& geometry);
void forward_single(const KernelArgs& args, const Geometry& geometry, bool tf32);
void backward_half(const KernelArgs& args, const Geometry& geometry);
void backward_single(const KernelArgs& args, const Geometry& geometry, bool tf32);

// attention_bias_sums_cuda.cu: attention_grad's bias sums, from the packed gradients that are there
// already, with the whole workspace, which they no longer need,
void sum_biases(const KernelArgs& args);
// and from `partial` [rows, 3, N, D].
void join_bias_sums(const KernelArgs& args, int64_t rows, const float* partial);

}  // namespace lithe::attention_cuda_kernels
