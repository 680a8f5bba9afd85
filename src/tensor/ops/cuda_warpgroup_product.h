// A matrix product in 16 bits on Hopper whose results pass through registers before they reach
// memory: c = epilogue(a b), a [rows, depth], b [depth, columns] or its transpose. For passes over
// the result that would otherwise read and write it once more. Device-only.
//
// A block stays on its processor and takes one tile of the result, [128, 256], after the other. One
// warp asks the copy engine for operands, two warpgroups multiply, and the other seven warps work
// on the tile before, which they get through shared memory as the product's rounded result: so the
// epilogue costs no time as long as it is shorter than the product. Two blocks of a cluster, one
// tile below the other, bring each other half of what both need of b.
#pragma once

#include "tensor/ops/cuda_bulk_copy.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe::device {

namespace product {

inline constexpr int kRows = 128;     // of a tile of the result
inline constexpr int kColumns = 256;  // and its columns
inline constexpr int kDepth = 64;     // of a stage
inline constexpr int kStages = 3;
inline constexpr int kThreads = 512;
inline constexpr int kMultipliers = 256;  // of them
inline constexpr int kCluster = 2;
inline constexpr int kWarps = 7;       // of the epilogue
inline constexpr int kRowsAtOnce = 2;  // that a lane of it has in registers
inline constexpr uint32_t kBytesA = kRows * kTileRowBytes;
inline constexpr uint32_t kBytesB = kColumns * kTileRowBytes;
inline constexpr uint32_t kBoxBytes = kDepth * kTileRowBytes;  // of b by rows: [64, 64]
inline constexpr uint32_t kRowBytes = kColumns * 2;            // of a result that is handed over

// Shared memory by offsets.
inline constexpr uint32_t kHandedOver = kStages * (kBytesA + kBytesB);
inline constexpr uint32_t kBias = kHandedOver + kRows * kRowBytes;  // of a tile
inline constexpr uint32_t kSums = kBias + kRowBytes;                // of the epilogue's warps
inline constexpr uint32_t kBarriers = kSums + kWarps * kColumns * 4;
inline constexpr uint32_t kBytes = kBarriers + 8 * (2 * kStages + 2);

extern __shared__ __align__(1024) unsigned char memory[];

// The 16-byte chunk of 8 results of a row, where neither rows nor chunks share banks.
__device__ inline uint32_t handed_chunk(int row, int chunk) {
  return static_cast<uint32_t>(row) * kRowBytes + (static_cast<uint32_t>(chunk ^ (row & 7)) << 4);
}

__device__ inline void store_matrices(uint32_t shared_row, const uint32_t (&word)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_row),
               "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3])
               : "memory");
}

// Two 16-bit elements of a word.
template <typename T>
__device__ inline void unpack_halves(uint32_t word, float (&pair)[2]) {
  if constexpr (std::is_same_v<T, bf16>) {
    pair[0] = __uint_as_float(word << 16);
    pair[1] = __uint_as_float(word & 0xffff0000u);
  } else {
    const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&word));
    pair[0] = two.x;
    pair[1] = two.y;
  }
}

struct Shape {
  int rows;
  int columns;
  int depth;
};

// What every role of a block knows: its tiles, one after the other.
struct Tiles {
  __device__ explicit Tiles(const Shape& shape)
      : across((shape.columns + kColumns - 1) / kColumns),
        rank(static_cast<int>(cluster_rank())),
        item(static_cast<int>(blockIdx.x) / kCluster),
        step(static_cast<int>(gridDim.x) / kCluster) {
    const int down = (shape.rows + kRows - 1) / kRows;
    items = (down + kCluster - 1) / kCluster * across;
  }
  __device__ bool more() const { return item < items; }
  __device__ void next() { item += step; }
  // Of the tile of the result, where one of the last two may lie behind the last row.
  __device__ int row() const { return (item / across * kCluster + rank) * kRows; }
  __device__ int column() const { return item % across * kColumns; }
  int across;
  int rank;
  int item;
  int step;
  int items;
};

// A place in the ring of stages.
struct Turn {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Barriers {
  uint32_t at;
  __device__ uint32_t full(int stage) const { return at + 8 * static_cast<uint32_t>(stage); }
  __device__ uint32_t empty(int stage) const {
    return at + 8 * static_cast<uint32_t>(kStages + stage);
  }
  // Every thread arrives at these two: what a lane has written or read is ordered by its own
  // arrival, which racecheck follows, and not by that of its warp's first lane.
  __device__ uint32_t handed_over() const { return at + 8 * 2 * kStages; }
  __device__ uint32_t taken() const { return at + 8 * (2 * kStages + 1); }
};

// One thread: asks for operands as places become free.
template <bool kDown>
__device__ inline void bring(const Shape& shape, uint32_t base, const Barriers& barriers,
                             const CUtensorMap& a, const CUtensorMap& b) {
  constexpr auto kAll = static_cast<uint16_t>((1 << kCluster) - 1);
  Turn turn;
  for (Tiles tile(shape); tile.more(); tile.next()) {
    const int column = tile.column();
    for (int k = 0; k < shape.depth; k += kDepth, turn.next()) {
      const uint32_t to = base + static_cast<uint32_t>(turn.stage) * (kBytesA + kBytesB);
      const uint32_t full = barriers.full(turn.stage);
      barrier_wait(barriers.empty(turn.stage), turn.parity ^ 1);
      barrier_expect(full, kBytesA + kBytesB);
      copy_box(to, a, full, k, tile.row());
      const uint32_t own = to + kBytesA + static_cast<uint32_t>(tile.rank) * (kBytesB / kCluster);
      const int first = column + tile.rank * (kColumns / kCluster);
      if constexpr (kDown) {
#pragma unroll
        for (int box = 0; box < kColumns / kCluster / kTileColumns; ++box) {
          copy_box_to_all(own + static_cast<uint32_t>(box) * kBoxBytes, b, full,
                          first + box * kTileColumns, k, kAll);
        }
      } else {
        copy_box_to_all(own, b, full, k, first, kAll);
      }
    }
  }
}

template <bool kDown>
__device__ inline uint64_t describe_b(uint32_t address) {
  if constexpr (kDown) {  // columns go on in the next box
    constexpr uint64_t kNextBox = uint64_t{kBoxBytes / 16 - 1} << 16;
    return describe_tile(address) + kNextBox;
  } else {
    return describe_tile(address);
  }
}

// Two warpgroups of 64 rows each.
template <typename T, bool kDown>
__device__ inline void multiply(const Shape& shape, uint32_t base, const Barriers& barriers,
                                bool has_bias) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int lane = thread % 32;
  const int first_row = (static_cast<int>(threadIdx.x) / 128 - 1) * 64;
  const auto release = [&](int stage) {
    if (lane < kCluster) {
      barrier_arrive_at(barriers.empty(stage), static_cast<uint32_t>(lane));
    }
  };
  float c[2][kColumns / 16][4];  // one instruction for both wants more registers than a thread has
  Turn turn;
  uint32_t tiles = 0;
  for (Tiles tile(shape); tile.more(); tile.next(), ++tiles) {
    int before = 0;
    for (int k = 0; k < shape.depth; k += kDepth, turn.next()) {
      const uint32_t from = base + static_cast<uint32_t>(turn.stage) * (kBytesA + kBytesB);
      const uint64_t a = describe_tile(from + static_cast<uint32_t>(first_row) * kTileRowBytes);
      const uint64_t b = describe_b<kDown>(from + kBytesA);
      constexpr uint64_t kNextB = kDown ? kNextRows : kNextColumns;
      barrier_wait(barriers.full(turn.stage), turn.parity);
      warpgroup_begin();
#pragma unroll
      for (int s = 0; s < kDepth / 16; ++s) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          constexpr uint64_t kHalf = kBytesB / 2 / 16;
          multiply_wide<T, kDown>(c[half], a + static_cast<uint64_t>(s) * kNextColumns,
                                  b + static_cast<uint64_t>(s) * kNextB + half * kHalf,
                                  k > 0 || s > 0);
        }
      }
      warpgroup_commit();
      if (k > 0) {
        warpgroup_wait<1>();
        release(before);
      }
      before = turn.stage;
    }
    warpgroup_wait<0>();
    settle(c[0]);
    settle(c[1]);
    release(before);
    // The tile before has been taken, and this one's biases are there.
    barrier_wait(barriers.taken(), (tiles & 1) ^ 1);
    const int row = first_row + thread / 32 * 16 + lane % 16;
    const uint32_t bias = base + kBias + static_cast<uint32_t>(lane % 4) * 4;
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
      uint32_t word[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float pair[2] = {};
        if (has_bias) {
          unpack_halves<T>(load_shared_word(bias + static_cast<uint32_t>(n + i) * 16), pair);
        }
        word[2 * i] = pack_halves<T>(c[(n + i) / 16][(n + i) % 16][0] + pair[0],
                                     c[(n + i) / 16][(n + i) % 16][1] + pair[1]);
        word[2 * i + 1] = pack_halves<T>(c[(n + i) / 16][(n + i) % 16][2] + pair[0],
                                         c[(n + i) / 16][(n + i) % 16][3] + pair[1]);
      }
      store_matrices(base + kHandedOver + handed_chunk(row, n + lane / 16), word);
    }
    barrier_arrive(barriers.handed_over());
  }
}

// A thread of the epilogue. Its warp takes every seventh row of a tile, a lane eight columns of it.
struct Worker {
  int warp;
  int lane;
  __device__ int thread() const { return warp * 32 + lane; }
  static constexpr int kThreads = kWarps * 32;
  // All of them.
  __device__ static void meet() { asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory"); }
};

// Two biases of a tile, by the first threads.
__device__ inline bool has_biases(const Shape& shape, int column, int thread) {
  return thread < kColumns / 2 && column + 2 * thread < shape.columns;
}
template <typename T>
__device__ inline uint32_t load_biases(const T* bias, int column, int thread) {
  return *reinterpret_cast<const uint32_t*>(bias + column + 2 * thread);
}
__device__ inline void store_biases(uint32_t base, int thread, uint32_t pair) {
  store_shared(base + kBias + static_cast<uint32_t>(thread) * 4, pair);
}

// The epilogue has a type Loaded, what it reads of its own beside eight results, load(at) for that,
// before the results are there, and rows(words, loaded, at, step, inside) for rows `step` elements
// apart, of which `inside` says whether they are there; begin(worker) before the first tile, and
// end(worker, sums, tile, column, inside) after each, with shared memory for sums of its warps.
template <typename T, typename Epilogue>
__device__ inline void finish(const Shape& shape, uint32_t base, const Barriers& barriers,
                              const T* bias, const Worker& worker, Epilogue& epilogue) {
  constexpr int kStep = kWarps * kRowsAtOnce;
  const auto [warp, lane] = worker;
  uint32_t tiles = 0;
  for (Tiles tile(shape); tile.more(); tile.next(), ++tiles) {
    const int column = tile.column() + 8 * lane;
    const int rows = column < shape.columns ? min(shape.rows - tile.row(), kRows) : 0;
    const int64_t at = int64_t{tile.row() + warp} * shape.columns + column;
    typename Epilogue::Loaded loaded[kRowsAtOnce];
    const auto load = [&](int row) {
#pragma unroll
      for (int u = 0; u < kRowsAtOnce; ++u) {
        if (row + kWarps * u < rows) {
          loaded[u] = epilogue.load(at + int64_t{row - warp + kWarps * u} * shape.columns);
        }
      }
    };
    load(warp);
    Tiles following = tile;
    following.next();
    const bool brings = bias != nullptr && following.more() &&
                        has_biases(shape, following.column(), worker.thread());
    const uint32_t pair = brings ? load_biases(bias, following.column(), worker.thread()) : 0;
    barrier_wait(barriers.handed_over(), tiles & 1);
    if (brings) {
      store_biases(base, worker.thread(), pair);
    }
#pragma unroll 1
    for (int row = warp; row < kRows; row += kStep) {
      uint4 words[kRowsAtOnce];
      bool inside[kRowsAtOnce];
      typename Epilogue::Loaded now[kRowsAtOnce];
#pragma unroll
      for (int u = 0; u < kRowsAtOnce; ++u) {
        const int there = min(row + kWarps * u, kRows - 1);
        words[u] = load_shared(base + kHandedOver + handed_chunk(there, lane));
        inside[u] = row + kWarps * u < rows;
        now[u] = loaded[u];
      }
      if (row + kStep >= kRows) {  // the last are in registers
        barrier_arrive(barriers.taken());
      } else {
        load(row + kStep);
      }
      epilogue.rows(words, now, at + int64_t{row - warp} * shape.columns, kWarps * shape.columns,
                    inside);
    }
    epilogue.end(worker, base + kSums, tile.row() / kRows, column, rows > 0);
  }
}

template <typename T, bool kDown, typename Epilogue>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    kernel(const Shape shape, const __grid_constant__ CUtensorMap a,
           const __grid_constant__ CUtensorMap b, const T* bias,
           const __grid_constant__ Epilogue epilogue_of_all) {
  const uint32_t base = shared_address(memory);
  const Barriers barriers{base + kBarriers};
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(barriers.full(stage), 1);
      barrier_init(barriers.empty(stage), kMultipliers / 32 * kCluster);
    }
    barrier_init(barriers.handed_over(), kMultipliers);
    barrier_init(barriers.taken(), Worker::kThreads);
    publish_barriers();
  }
  const int first_column = Tiles(shape).column();
  if (bias != nullptr && has_biases(shape, first_column, thread)) {
    store_biases(base, thread, load_biases(bias, first_column, thread));
  }
  cluster_meet();
  const int warp = thread / 32;
  if (warp < 4 || warp >= 12) {
    keep_registers<88>();
    if (thread == 0) {
      bring<kDown>(shape, base, barriers, a, b);
    } else if (warp > 0) {
      const Worker worker{warp < 4 ? warp - 1 : warp - 9, thread % 32};
      Epilogue epilogue = epilogue_of_all;
      epilogue.begin(worker);
      finish(shape, base, barriers, bias, worker, epilogue);
    }
  } else {
    take_registers<168>();
    multiply<T, kDown>(shape, base, barriers, bias != nullptr);
  }
  cluster_meet();  // a block's memory stays until its neighbour sends nothing more
}

}  // namespace product

}  // namespace lithe::device
