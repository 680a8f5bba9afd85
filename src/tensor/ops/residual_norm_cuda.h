// How the kernels of residual_norm walk over rows: a warp, or for long rows a block, takes one row
// after the other and copies the next into shared memory while it works on this one. Device-only.
#pragma once

#include <cuda_pipeline.h>

#include "tensor/ops/cuda_launch.h"
#include "tensor/ops/cuda_philox.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_row.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/residual_norm_split.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe::device {

// kT threads a row, kE of its elements each; kF: all rows are of kT kE elements.
template <typename T, int kT, int kE, bool kF>
struct NormWalk {
  static constexpr int kVector = kWide<T>;
  static constexpr int kThreads = kT;
  static constexpr int kElements = kE;
  static constexpr bool kFull = kF;
  static constexpr int kPacks = kE / kVector;
  static constexpr int kBlock = kT > kWarp ? kT : kWarp* norm_warps_of_block(sizeof(T));
  static constexpr int kRowsOfBlock = kBlock / kT;
  // Blocks of a multiprocessor; the longest fp32 rows leave room for one.
  static constexpr int kResident = kBlock * kE > 4096 && sizeof(T) == 4 ? 1 : 2;

  // Known to the compiler where rows are full: no bounds are checked then.
  __device__ static int row_size(int64_t size) {
    return kF ? kThreads * kElements : static_cast<int>(size);
  }
  __device__ static int lane() { return static_cast<int>(threadIdx.x % kThreads); }
  __device__ static int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kThreads;
  }
  // Elements between the packs of a thread.
  static constexpr int kStep = kThreads * kVector;
  __device__ static int64_t row_step() { return static_cast<int64_t>(gridDim.x) * kRowsOfBlock; }

  // Calls f(pack, first column) for each of this thread's packs inside the row.
  template <typename F>
  __device__ static void for_packs(int size, F&& f) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kThreads + lane()) * kVector;
      if (kF || column < size) {
        f(p, column);
      }
    }
  }
};

template <typename T, int kElements, typename F>
void dispatch_warp_walk(int64_t size, F&& f) {
  if (size == kWarp * kElements) {
    f.template operator()<NormWalk<T, kWarp, kElements, true>>();
  } else {
    f.template operator()<NormWalk<T, kWarp, kElements, false>>();
  }
}

// Rows that a warp takes.
template <typename T, typename F>
void dispatch_warp_walks(int64_t size, F&& f) {
  if (size <= 256) {
    dispatch_warp_walk<T, 8>(size, f);
  } else if (size <= 512) {
    dispatch_warp_walk<T, 16>(size, f);
  } else if (size <= 768) {
    dispatch_warp_walk<T, 24>(size, f);
  } else {
    f.template operator()<NormWalk<T, kWarp, 32, false>>();
  }
}

template <typename T, typename F>
void dispatch_norm_walk(int64_t size, F&& f) {
  if (size <= kLongestWarpRow) {
    dispatch_warp_walks<T>(size, f);
  } else if (size <= 2048) {
    f.template operator()<NormWalk<T, 256, 8, false>>();
  } else if (size <= 4096) {
    f.template operator()<NormWalk<T, 256, 16, false>>();
  } else {
    f.template operator()<NormWalk<T, 256, 32, false>>();
  }
}

// Rows with codes have kernels for what a warp takes, and none in fp64.
inline void expect_walked_in_codes(const KernelArgs& args, const SavedCode& code) {
  if (!is_walked_in_codes(code, args.in[0].dtype, args.in[0].shape) &&
      args.in[0].shape.numel() > 0) {
    throw DeviceError(args.op, "rows of {} {} have no kernel; up to {} of 16 or 32 bits have",
                      args.in[0].shape.back(), dtype_name(args.in[0].dtype), kLongestWarpRow);
  }
}

// What a pack of codes stands for, as T holds it, from what fetch_codes() has laid down: of the
// group of that number; `second`: four codes that are the second half of a word.
template <typename T>
__device__ inline uint4 decode_words(const CodeFrom& c, const uint4& words, uint32_t group,
                                     bool second) {
  constexpr int kV = kWide<T>;
  const float scale = scale_number(words.z, c.scale, group);
  float x[kV];
  if (c.bits == 8) {
    const uint32_t word[2] = {words.x ^ kSignBits8, words.y ^ kSignBits8};
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      x[j] = shifted_byte(word[j / 4], j % 4) * scale;
    }
  } else {
    const uint32_t word = (kV == 4 && second ? words.x >> 16 : words.x) ^ kSignBits4;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      x[j] = shifted_nibble(word, j) * scale;
    }
  }
  return pack<T>(x);
}

// Shared memory: parameters [size] first, then two halves of each of the tensors' rows.
template <typename Walk, typename T, int kParameterRows>
class RowStage {
 public:
  static constexpr int kParameterChunks = kParameterRows * Walk::kPacks * Walk::kThreads;

  static constexpr size_t row_bytes(int tensors) {
    return sizeof(uint4) * 2 * static_cast<size_t>(tensors * Walk::kPacks * Walk::kBlock);
  }
  static constexpr size_t bytes(int tensors) {
    return sizeof(uint4) * kParameterChunks + row_bytes(tensors);
  }
  __device__ explicit RowStage(uint4* shared)
      : parameters_(shared), own_(shared + kParameterChunks + threadIdx.x) {}

  // All threads of the block take part; the rows' memory starts here.
  __device__ void load_parameter(int i, const T* from, int size) const {
    const auto* chunks = reinterpret_cast<const uint4*>(from);
#pragma unroll 1
    for (int c = static_cast<int>(threadIdx.x); c * Walk::kVector < size; c += Walk::kBlock) {
      parameters_[i * Walk::kPacks * Walk::kThreads + c] = chunks[c];
    }
  }
  __device__ uint4 parameter(int i, int pack) const {
    return parameters_[(i * Walk::kPacks + pack) * Walk::kThreads + Walk::lane()];
  }
  __device__ uint4* rows() const { return parameters_ + kParameterChunks; }

  // Starts to copy `row`, of `size` elements, into half 0 or 1 of tensor t. A thread reads what it
  // has copied itself, so no barrier is needed.
  __device__ void fetch(int t, int half, const T* row, int size) const {
    Walk::for_packs(size, [&](int pack, int column) {
      __pipeline_memcpy_async(slot(t, half, pack), row + column, sizeof(uint4));
    });
  }
  // The same for codes of a row whose first element is number `at`: a pack's codes in a slot's
  // first 8 bytes and the word that holds their scale behind them, for decode().
  __device__ void fetch_codes(int t, int half, const CodeFrom& c, int64_t at, int size) const {
    constexpr int kV = Walk::kVector;
    const int64_t first = at + Walk::lane() * kV;
    const uint8_t* codes = c.codes + (c.bits == 8 ? first : (first >> 1) & ~int64_t{3});
    if (c.bits == 8) {
      Walk::for_packs(size, [&](int pack, int) {
        __pipeline_memcpy_async(slot(t, half, pack), codes + pack * Walk::kStep, kV);
      });
    } else {
      Walk::for_packs(size, [&](int pack, int) {
        __pipeline_memcpy_async(slot(t, half, pack), codes + pack * Walk::kStep / 2, 4);
      });
    }
    const int64_t group = first >> c.group_bits;
    const auto* scales = static_cast<const char*>(c.scales);
    const int shift = c.scale == DType::f32 ? 2 : 1;
    Walk::for_packs(size, [&](int pack, int) {
      const int64_t byte = ((group + pack * groups_of_step(c)) << shift) & ~int64_t{3};
      __pipeline_memcpy_async(reinterpret_cast<char*>(slot(t, half, pack)) + 8, scales + byte, 4);
    });
  }
  // A pack of that row as T holds it.
  __device__ uint4 decode(int t, int half, const CodeFrom& c, int64_t at, int pack) const {
    const int64_t first = at + Walk::lane() * Walk::kVector;
    const uint32_t group = static_cast<uint32_t>(first >> c.group_bits) +
                           static_cast<uint32_t>(pack * groups_of_step(c));
    return decode_words<T>(c, read(t, half, pack), group, (first & 4) != 0);
  }
  // Over what this thread has fetched there.
  __device__ void write(int t, int half, int pack, const uint4& words) const {
    *slot(t, half, pack) = words;
  }
  // Volatile: a second pass over the row shall read it again, instead of keeping in registers what
  // the first one has made of it; there they are needed for sums.
  __device__ uint4 read(int t, int half, int pack) const {
    uint4 words;
    const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(slot(t, half, pack)));
    asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "r"(from)
                 : "memory");
    return words;
  }

 private:
  // A group lies in one pack of a warp, so its size divides that.
  __device__ static int groups_of_step(const CodeFrom& c) { return Walk::kStep >> c.group_bits; }
  __device__ uint4* slot(int t, int half, int pack) const {
    return own_ + ((t * 2 + half) * Walk::kPacks + pack) * Walk::kBlock;
  }
  uint4* parameters_;
  uint4* own_;
};

// What one site keeps in one step. `rng` null: everything.
template <typename A>
struct NormDropout {
  const int64_t* rng = nullptr;
  uint64_t key = 0;
  uint32_t threshold = 0;
  A scale = 1;
};

template <typename A>
NormDropout<A> norm_dropout(const KernelArgs& args, const DropoutAttrs& attrs, size_t rng) {
  if (attrs.p == 0) {
    return {};
  }
  return {args.in[rng].as<int64_t>(), attrs.key, dropout_threshold(attrs.p),
          static_cast<A>(dropout_scale(attrs.p))};
}

template <typename A>
class NormMask {
 public:
  __device__ explicit NormMask(const NormDropout<A>& dropout) : dropout_(dropout) {
    if (dropout.rng != nullptr) {
      seed_ = static_cast<uint64_t>(dropout.rng[0]);
      stream_ = mix(dropout.key, static_cast<uint64_t>(dropout.rng[1]));
    }
  }
  __device__ A scale() const { return dropout_.scale; }

  // The random bits of kV elements from number `first` on, two a word; for kept().
  template <int kV>
  struct Bits {
    uint32_t word[kV / 2];
  };
  template <int kV>
  __device__ Bits<kV> bits(int64_t first) const {
    static_assert(kDropoutLanes % kV == 0 && kV % 2 == 0);
    Bits<kV> out = {};
    if (dropout_.rng != nullptr) {
      const auto number = static_cast<uint64_t>(first);
      const uint64_t block[1] = {number / kDropoutLanes};
      uint32_t word[1][4];
      philox_blocks<kDropoutRounds>(seed_, stream_, block, word);
      const bool back = kV < kDropoutLanes && number % kDropoutLanes != 0;
#pragma unroll
      for (int w = 0; w < kV / 2; ++w) {
        out.word[w] = word[0][w];
        if constexpr (kV < kDropoutLanes) {
          out.word[w] = back ? word[0][w + 2] : out.word[w];
        }
      }
    }
    return out;
  }
  // Whether element j of them is kept. Lanes are compared at the top of a word. The threshold 2^16
  // is no longer one there, but its scale is 0.
  template <int kV>
  __device__ bool kept(const Bits<kV>& bits, int j) const {
    const uint32_t word = bits.word[j / 2];
    return (j % 2 == 0 ? word << 16 : word) >= dropout_.threshold << 16;
  }
  // The scale or 0 for element number i.
  __device__ A factor(int64_t i) const {
    if (dropout_.rng == nullptr) {
      return A(1);
    }
    const uint64_t number = static_cast<uint64_t>(i);
    const PhiloxBlock block = dropout_block(seed_, stream_, number / kDropoutLanes);
    const auto lane = static_cast<uint32_t>(number % kDropoutLanes);
    // Chosen, not indexed: registers have no address.
    const uint32_t low = lane < 2 ? block.word[0] : block.word[1];
    const uint32_t high = lane < 6 ? block.word[2] : block.word[3];
    const uint32_t word = lane < 4 ? low : high;
    return ((word >> (16 * (lane % 2))) & 0xffffu) >= dropout_.threshold ? dropout_.scale : A(0);
  }

 private:
  NormDropout<A> dropout_;
  uint64_t seed_ = 0;
  uint64_t stream_ = 0;
};

// Both sums over the threads of a row; a block's threads must all take part.
template <int kThreads, typename A>
__device__ inline void group_sums(A& a, A& b) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const A other_a = __shfl_xor_sync(0xffffffffu, a, step);
    const A other_b = __shfl_xor_sync(0xffffffffu, b, step);
    a += other_a;
    b += other_b;
  }
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    __shared__ A of_warp[2][kWarps];
    if (threadIdx.x % kWarp == 0) {
      of_warp[0][threadIdx.x / kWarp] = a;
      of_warp[1][threadIdx.x / kWarp] = b;
    }
    __syncthreads();
    a = of_warp[0][0];
    b = of_warp[1][0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      a += of_warp[0][w];
      b += of_warp[1][w];
    }
    __syncthreads();  // the next reduction writes there again
  }
}

// Shared memory that a block may have on an H100.
inline constexpr size_t kMostSharedBytes = size_t{227} << 10;

// Rows that are not walked: short ones a warp each, others a block.
template <typename F>
void dispatch_plain_row(int64_t size, F&& f) {
  if (size <= kLongestWarpRow) {
    f.template operator()<RowConfig<1, kWarp, 0>>();
  } else {
    f.template operator()<RowConfig<1, 256, 0>>();
  }
}

}  // namespace lithe::device
