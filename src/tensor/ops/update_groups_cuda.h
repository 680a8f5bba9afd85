// Many tensors of mixed sizes in one launch: a block works on one chunk of one tensor, which it
// finds in a table that travels with the launch, so a recording needs no memory of its own.
// Device-only.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/update_measures.h"

namespace lithe::device {

inline constexpr int kUpdateThreads = 256;
// Arguments of a kernel: what every launch may have, and what this generation may have.
inline constexpr size_t kFewArguments = 4096;
inline constexpr size_t kManyArguments = 32760;

// `Tensor` describes one tensor and has its size as n; `Common` is of all.
template <typename Tensor, typename Common, size_t kBytes>
struct UpdateGroup {
  static constexpr int kMost =
      static_cast<int>((kBytes - sizeof(Common) - 16) / (sizeof(Tensor) + sizeof(uint32_t)));

  Common common;
  int32_t count = 0;
  uint32_t first[kMost + 1] = {};  // chunk, over all tensors; behind the last: how many there are
  Tensor tensor[kMost] = {};

  // The tensor of this block.
  __device__ int find() const {
    int low = 0;
    int high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first[middle] <= blockIdx.x ? low : high) = middle;
    }
    return low;
  }
};

// Calls launch(group, blocks) for as few groups as hold the tensors. An empty tensor has a block
// too: its step counts, its sums are zeros.
template <size_t kBytes, typename Tensor, typename Common, typename Launch>
void launch_groups_of(const Common& common, std::span<const Tensor> tensors, Launch&& launch) {
  using Group = UpdateGroup<Tensor, Common, kBytes>;
  static_assert(sizeof(Group) <= kBytes && Group::kMost > 1);
  for (size_t done = 0; done < tensors.size();) {
    Group group{.common = common};
    int64_t blocks = 0;
    for (; done < tensors.size() && group.count < Group::kMost; ++done) {
      const int64_t chunks = std::max<int64_t>(1, update_chunks(tensors[done].n));
      if (group.count > 0 && blocks + chunks > INT32_MAX) {
        break;
      }
      group.tensor[group.count] = tensors[done];
      group.first[group.count++] = static_cast<uint32_t>(blocks);
      blocks += chunks;
    }
    const unsigned grid = blocks_for(blocks, 1);
    group.first[group.count] = grid;
    launch(group, grid);
  }
}

template <typename Tensor, typename Common, typename Launch>
void launch_groups(const Common& common, const std::vector<Tensor>& tensors, Launch&& launch) {
  const std::span all(tensors);
  if (all.size() <= UpdateGroup<Tensor, Common, kFewArguments>::kMost) {
    launch_groups_of<kFewArguments>(common, all, launch);
  } else {
    launch_groups_of<kManyArguments>(common, all, launch);
  }
}

// Splits calls into sets of which one launch can take all, told by same(a, b), and calls f(set) for
// each. Every set and all in it are in the order of the calls.
template <typename Same, typename F>
void for_alike(std::span<const KernelArgs> calls, Same&& same, F&& f) {
  std::vector<const KernelArgs*> rest;
  for (const KernelArgs& call : calls) {
    rest.push_back(&call);
  }
  while (!rest.empty()) {
    const KernelArgs& model = *rest.front();
    const auto other = std::stable_partition(
        rest.begin(), rest.end(), [&](const KernelArgs* call) { return same(model, *call); });
    f(std::span<const KernelArgs* const>(rest.data(), static_cast<size_t>(other - rest.begin())));
    rest.erase(rest.begin(), other);
  }
}

// An fp32 or fp64 scalar in device memory; 1 where there is none.
struct Scalar {
  const void* data = nullptr;
  bool wide = false;

  static Scalar of(std::span<const TensorRef> in, size_t i) {
    return i < in.size() ? Scalar{in[i].data, in[i].dtype == DType::f64} : Scalar{};
  }
  bool operator==(const Scalar&) const = default;
  __device__ double value() const {
    if (data == nullptr) {
      return 1;
    }
    return wide ? *static_cast<const double*>(data)
                : static_cast<double>(*static_cast<const float*>(data));
  }
};

// The step counter is read by all blocks of its tensor and advanced by the last of them to finish.
// Arrivals are counted in its upper bits, which saves a launch and a buffer.
inline constexpr int kArrivals = 40;
inline constexpr unsigned long long kArrival = 1ull << kArrivals;

__device__ inline int64_t steps_before(const int64_t* step) {
  const auto* counter = reinterpret_cast<const volatile unsigned long long*>(step);
  return static_cast<int64_t>(*counter & (kArrival - 1));
}
// Whether this block is the last of `blocks`; one thread a block, after its last read of the step.
// The last one counts `advance` steps.
__device__ inline bool arrive(int64_t* step, unsigned blocks, int64_t advance = 1) {
  auto* counter = reinterpret_cast<unsigned long long*>(step);
  const unsigned long long old = atomicAdd(counter, kArrival);
  if ((old >> kArrivals) != blocks - 1) {
    return false;
  }
  atomicExch(counter, (old & (kArrival - 1)) + static_cast<unsigned long long>(advance));
  return true;
}

// `count` of kVector elements, in one access where all are there.
template <int kVector, typename T>
__device__ inline Pack<T, kVector> load_some(const T* from, int count) {
  if (count >= kVector) {
    return load<kVector>(from);
  }
  Pack<T, kVector> out{};
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (j < count) {
      out.at[j] = from[j];
    }
  }
  return out;
}
template <int kVector, typename T>
__device__ inline void store_some(T* to, const Pack<T, kVector>& pack, int count) {
  if (count >= kVector) {
    store(to, pack);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (j < count) {
      to[j] = pack.at[j];
    }
  }
}

// Where a tensor's gradient lies: whole, or as rows of a table (update.h).
struct GradientPlace {
  const void* data = nullptr;
  const int32_t* rows = nullptr;  // null: whole
  int64_t hidden = 0;

  // Of the operands `gradient` and `map`.
  static GradientPlace of(const KernelArgs& args, size_t gradient, size_t map) {
    const TensorRef& from = args.in[gradient];
    const int32_t* rows = map < args.in.size() ? args.in[map].as<int32_t>() : nullptr;
    return {from.data, rows, rows == nullptr ? 0 : from.shape[1]};
  }
};

// load_some of the whole gradient from element `begin + i` on, a multiple of kVector.
template <int kVector, typename G>
__device__ inline Pack<G, kVector> load_gradient(const GradientPlace& place, int64_t begin, int i,
                                                 int inside) {
  const G* data = static_cast<const G*>(place.data);
  if (place.rows == nullptr) {
    return load_some<kVector>(data + begin + i, inside);
  }
  Pack<G, kVector> out{};
  const int64_t at = begin + i;
  if (place.hidden % kVector == 0) {  // a pack lies in one row
    const int64_t row = inside > 0 ? at / place.hidden : 0;
    const int64_t from = inside > 0 ? place.rows[row] : -1;
    if (from >= 0) {
      out = load<kVector>(data + from * place.hidden + (at - row * place.hidden));
    }
    return out;
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (j < inside) {
      const int64_t row = (at + j) / place.hidden;
      const int64_t from = place.rows[row];
      if (from >= 0) {
        out.at[j] = data[from * place.hidden + (at + j - row * place.hidden)];
      }
    }
  }
  return out;
}

// How a block walks through a chunk: in batches of kUnroll packs of kVector elements a thread, all
// of whose loads are on their way before the first is used. Only a tensor's last chunk is shorter
// than kUpdateChunk; a whole one (kWhole) needs no bounds.
template <int kVector, int kUnroll>
struct ChunkWalk {
  static constexpr int kBatch = kUpdateThreads * kVector * kUnroll;
  static_assert(kUpdateChunk % kBatch == 0);

  // How many of a pack's elements at `i` lie in the chunk.
  template <bool kWhole>
  __device__ static int inside(int i, int count) {
    return kWhole ? kVector : count - i;
  }
  __device__ static int at(int batch, int u) {
    return batch * kBatch + (u * kUpdateThreads + static_cast<int>(threadIdx.x)) * kVector;
  }
};

}  // namespace lithe::device
