// What the two CUDA kernels of AdamW, with moments in fp32 and in 8 bits, share. Device-only.
#pragma once

#include "tensor/ops/update_sums_cuda.h"

namespace lithe::device {

struct AdamWTensor {
  int64_t n;
  void* w;
  GradientPlace gradient;
  void* m;  // or codes
  void* v;  // or scales
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
  int64_t step;  // this one included
  bool stays;    // without a gradient, and never updated
};

// The step does not change before all blocks of the tensor have arrived.
__device__ inline bool stays(const AdamWCommon& p, const AdamWTensor& tensor) {
  return p.attrs.no_gradient && steps_before(tensor.step) == 0;
}

template <typename A>
__device__ inline AdamWFactors<A> prepare(const AdamWCommon& p, const AdamWTensor& tensor) {
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
  f.step = step;
  f.stays = p.attrs.no_gradient && step == 1;
  return f;
}

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

template <typename T, int kVector>
__device__ inline void store_copies(const AdamWCommon& p, const AdamWTensor& tensor, int64_t i,
                                    const Pack<T, kVector>& weights, int count) {
  if constexpr (std::is_same_v<T, float>) {
    if (tensor.copy != nullptr) {
      p.bf16_copies ? store_copy<bf16>(tensor.copy, i, weights, count)
                    : store_copy<f16>(tensor.copy, i, weights, count);
    }
  }
}

// What a pack adds to the sums of its chunk.
template <typename A, int kVector>
__device__ inline void measure_change(const ChangeRule<A>& rule, const Pack<A, kVector>& before,
                                      const Pack<A, kVector>& after, int inside, ChunkSums& sums) {
  A moved = 0;
  A size = 0;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (j < inside) {
      moved += rule.magnitude(before.at[j] - after.at[j]) / rule.under(before.at[j]);
      size += rule.magnitude(before.at[j]);
    }
  }
  sums.moved += static_cast<double>(moved);
  sums.size += static_cast<double>(size);
}

// The end of a block's work on chunk `chunk` of `chunks`: counts the step and joins what was
// measured once all blocks of the tensor are here. `shared_last` is the block's own.
template <bool kMeasured>
__device__ inline void finish_chunk(const AdamWCommon& p, const AdamWTensor& tensor, unsigned chunk,
                                    unsigned chunks, ChunkSums sums, bool& shared_last) {
  if constexpr (kMeasured) {
    sums = block_sums(sums);
  }
  if (threadIdx.x == 0) {
    const int64_t advance = stays(p, tensor) ? 0 : 1;
    if constexpr (kMeasured) {
      if (chunk * kUpdateChunk < tensor.n) {
        tensor.sums.partial[chunk] = sums;
      }
      __threadfence();  // the sums before the arrival
    }
    shared_last = arrive(tensor.step, chunks, advance);
  }
  if constexpr (kMeasured) {
    __syncthreads();
    if (shared_last) {
      __threadfence();
      join_sums(tensor.sums, p.attrs.measures, tensor.n);
    }
  }
}

// Defined in adamw_blocks_cuda.cu: of calls that one launch can take, with moments in 8 bits.
void launch_adamw_blocks(const KernelArgs& model, const AdamWCommon& common,
                         const std::vector<AdamWTensor>& tensors);

}  // namespace lithe::device
