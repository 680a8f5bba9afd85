#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kScanThreads = 1024;
constexpr int kRun = static_cast<int>(EmbeddingScratch::kRunTile);
constexpr int32_t kNoRow = -1;
static_assert(kRun == kWarp, "a lane of a warp knows one position of a run");
static_assert(EmbeddingScratch::kRankTile % kThreads == 0);

// The ids of a batch; those that count have a row.
struct Ids {
  const int64_t* ids;
  int64_t n;
  int64_t vocabulary;
  int64_t padding;

  // kNoRow: the padding row, outside the table, or behind the last id.
  __device__ int32_t row(int64_t i) const {
    if (i >= n) {
      return kNoRow;
    }
    const int64_t id = ids[i];
    return id >= 0 && id < vocabulary && id != padding ? static_cast<int32_t>(id) : kNoRow;
  }
};

// The rank of each position among those of its row in its tile, by comparing it with all before it;
// and how many a tile and all tiles have of each row. A block takes kThreads positions.
__global__ void __launch_bounds__(kThreads)
    rank_kernel(const Ids in, int64_t tile, uint32_t* ranks, uint32_t* counts, uint32_t* totals) {
  constexpr int kStage = static_cast<int>(EmbeddingScratch::kRankTile);
  __shared__ int4 staged[kStage / 4];
  auto* rows = reinterpret_cast<int32_t*>(staged);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kThreads;  // of this block's positions
  const int64_t tile_index = begin / tile;
  const int64_t i = begin + threadIdx.x;
  const int32_t mine = in.row(i);
  uint32_t rank = 0;
  for (int64_t stage = tile_index * tile; stage < begin; stage += kStage) {
    __syncthreads();
    for (int j = static_cast<int>(threadIdx.x); j < kStage; j += kThreads) {
      rows[j] = stage + j < begin ? in.row(stage + j) : kNoRow;
    }
    __syncthreads();
    const int end = static_cast<int>(begin - stage < kStage ? begin - stage : kStage);
#pragma unroll 8
    for (int j = 0; j < end / 4; ++j) {  // kThreads is a multiple of 4
      const int4 four = staged[j];
      rank += (four.x == mine ? 1 : 0) + (four.y == mine ? 1 : 0) + (four.z == mine ? 1 : 0) +
              (four.w == mine ? 1 : 0);
    }
  }
  __syncthreads();
  rows[threadIdx.x] = mine;
  __syncthreads();
  uint32_t before = 0;
  uint32_t behind = 0;
  for (int j = 0; j < kThreads; ++j) {
    const bool same = rows[j] == mine;
    before += same && j < static_cast<int>(threadIdx.x) ? 1 : 0;
    behind += same && j > static_cast<int>(threadIdx.x) ? 1 : 0;
  }
  if (mine == kNoRow) {
    return;
  }
  ranks[i] = rank + before;
  if (behind == 0) {  // one thread a row adds for the whole block
    atomicAdd(counts + tile_index * in.vocabulary + mine, before + 1);
    atomicAdd(totals + mine, before + 1);
  }
}

// bases[v]: how many positions have a row before v. counts[t, v] becomes where tile t's positions
// of row v begin. A block takes kScanThreads rows and adds up all rows before them itself. With
// `map` the row of v in the output is where its positions begin.
__global__ void __launch_bounds__(kScanThreads)
    place_rows_kernel(int64_t vocabulary, int64_t tiles, const uint32_t* totals, uint32_t* counts,
                      uint32_t* bases, int32_t* map) {
  __shared__ uint32_t of_warp[kScanThreads / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kScanThreads;
  uint32_t earlier = 0;
#pragma unroll 4
  for (int64_t v = threadIdx.x; v < begin; v += kScanThreads) {
    earlier += totals[v];
  }
  earlier = group_reduce<kScanThreads>(earlier, Sum{});

  const int64_t v = begin + threadIdx.x;
  const uint32_t total = v < vocabulary ? totals[v] : 0;
  uint32_t upto = total;  // of this warp's rows, this one included
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const uint32_t other = __shfl_up_sync(0xffffffffu, upto, step);
    upto += lane >= step ? other : 0;
  }
  if (lane == kWarp - 1) {
    of_warp[warp] = upto;
  }
  __syncthreads();
  uint32_t place = earlier + upto - total;
  for (int w = 0; w < warp; ++w) {
    place += of_warp[w];
  }
  if (v >= vocabulary) {
    return;
  }
  bases[v] = place;
  if (map != nullptr) {
    map[v] = total == 0 ? kNoRow : static_cast<int32_t>(place);
  }
  if (v == vocabulary - 1) {
    bases[vocabulary] = place + total;
  }
#pragma unroll 4
  for (int64_t t = 0; t < tiles; ++t) {
    uint32_t& count = counts[t * vocabulary + v];
    const uint32_t here = count;
    count = place;
    place += here;
  }
}

__global__ void __launch_bounds__(kThreads)
    sort_kernel(const Ids in, int64_t tile, const uint32_t* ranks, const uint32_t* counts,
                uint32_t* order, int32_t* rows) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int32_t row = in.row(i);
  if (row != kNoRow) {
    const uint32_t at = counts[i / tile * in.vocabulary + row] + ranks[i];
    order[at] = static_cast<uint32_t>(i);
    rows[at] = row;
  }
}

// store(), as accesses of 16 bytes: the compiler splits it here.
template <int kCount, typename T>
__device__ inline void store_whole(T* to, const Pack<T, kCount>& pack) {
  if constexpr (sizeof(pack) % sizeof(uint4) == 0) {
    uint4 words[sizeof(pack) / sizeof(uint4)];
    memcpy(words, &pack, sizeof(pack));
#pragma unroll
    for (size_t i = 0; i < sizeof(pack) / sizeof(uint4); ++i) {
      __stwb(reinterpret_cast<uint4*>(to) + i, words[i]);
    }
  } else {
    store(to, pack);
  }
}

template <typename T>
struct Sums {
  using A = acc_t<T>;
  int64_t vocabulary;
  int64_t hidden;
  const uint32_t* bases;
  const uint32_t* order;
  const int32_t* rows;
  const T* dy;
  T* dtable;
  A* partials;
  bool compact;  // row v of the table lies at bases[v]

  __device__ A* partial(int64_t run, bool starts_here, int64_t column) const {
    return partials + (run * 2 + (starts_here ? 1 : 0)) * hidden + column;
  }
};

template <int kV, typename T>
__device__ inline void write_row(const Sums<T>& p, int64_t row, int64_t column,
                                 const Pack<acc_t<T>, kV>& sums) {
  Pack<T, kV> out;
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    out.at[j] = narrow<T>(sums.at[j]);
  }
  const int64_t at = p.compact ? static_cast<int64_t>(p.bases[row]) : row;
  store_whole(p.dtable + at * p.hidden + column, out);
}

// A warp takes a run of sorted positions and a strip of columns: all its rows of dy are on their
// way at once, wherever one row of the table ends and the next begins.
template <int kV, typename T>
__device__ void sum_run(const Sums<T>& p, int64_t run, int64_t strip) {
  using A = acc_t<T>;
  constexpr int kUnroll = 8;
  const int64_t valid = p.bases[p.vocabulary];
  const int64_t begin = run * kRun;
  if (begin >= valid) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int count = static_cast<int>(valid - begin < kRun ? valid - begin : kRun);
  const int32_t my_row = lane < count ? p.rows[begin + lane] : kNoRow;
  const uint32_t my_position = lane < count ? p.order[begin + lane] : 0;
  const int32_t row_before = begin > 0 ? p.rows[begin - 1] : kNoRow;
  const int32_t row_behind = begin + count < valid ? p.rows[begin + count] : kNoRow;
  const int64_t column = (strip * kWarp + lane) * kV;
  const bool inside = column < p.hidden;
  Pack<A, kV> sums{};
  bool starts_here = __shfl_sync(0xffffffffu, my_row, 0) != row_before;
  for (int first = 0; first < count; first += kUnroll) {
    Pack<T, kV> in[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t position = __shfl_sync(0xffffffffu, my_position, first + u);
      if (inside && first + u < count) {
        in[u] = load<kV>(p.dy + position * p.hidden + column);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = first + u;
      const int32_t row = __shfl_sync(0xffffffffu, my_row, at);
      const int32_t following = __shfl_sync(0xffffffffu, my_row, (at + 1) % kWarp);
      if (at < count && inside) {
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          sums.at[j] += widen<A>(in[u].at[j]);
        }
        const bool is_last = at + 1 == count;
        if ((is_last ? row_behind : following) != row && starts_here) {
          write_row(p, row, column, sums);
        } else if (is_last || following != row) {
          store_whole(p.partial(run, starts_here, column), sums);
        }
        if (following != row) {
          sums = {};
          starts_here = true;
        }
      }
    }
  }
}

constexpr int kClearedRows = 8;  // of a warp

// The first `run_blocks` blocks sum runs, the others clear the rows that no id names.
template <int kV, typename T>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const Sums<T> p, unsigned run_blocks, int64_t strips) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (blockIdx.x < run_blocks) {
    const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
    sum_run<kV>(p, unit / strips, unit % strips);
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first =
      (static_cast<int64_t>(blockIdx.x - run_blocks) * kWarps + warp) * kClearedRows;
  const int64_t mine = first + lane < p.vocabulary ? first + lane : p.vocabulary;
  const uint32_t base = lane <= kClearedRows ? p.bases[mine] : 0;
  for (int r = 0; r < kClearedRows; ++r) {
    const uint32_t begin = __shfl_sync(0xffffffffu, base, r);
    const uint32_t end = __shfl_sync(0xffffffffu, base, r + 1);
    if (begin != end || first + r >= p.vocabulary) {
      continue;
    }
    for (int64_t column = int64_t{lane} * kV; column < p.hidden; column += kWarp * kV) {
      write_row(p, first + r, column, Pack<acc_t<T>, kV>{});
    }
  }
}

// A block takes the row that goes on behind run `blockIdx.x` and begins in it, and a strip of
// columns: each warp adds a stretch of its partial sums, the first adds those.
template <int kV, typename T>
__global__ void __launch_bounds__(kThreads) join_kernel(const Sums<T> p) {
  using A = acc_t<T>;
  __shared__ Pack<A, kV> of_warp[kWarps][kWarp];
  const int64_t valid = p.bases[p.vocabulary];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kRun;
  const int64_t end = begin + kRun;
  if (end >= valid) {
    return;
  }
  const int32_t row = p.rows[end - 1];
  const int64_t first = p.bases[row];
  const int64_t last = int64_t{p.bases[row + 1]} - 1;
  if (first < begin || last < end) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * kWarp + lane) * kV;
  const bool inside = column < p.hidden;
  const int64_t runs = last / kRun - blockIdx.x + 1;
  const int64_t each = (runs + kWarps - 1) / kWarps;
  const int64_t stop = (warp + 1) * each < runs ? (warp + 1) * each : runs;
  Pack<A, kV> sums{};
  if (inside) {
#pragma unroll 4
    for (int64_t r = warp * each; r < stop; ++r) {
      const Pack<A, kV> in = load<kV>(p.partial(blockIdx.x + r, r == 0, column));
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        sums.at[j] += in.at[j];
      }
    }
  }
  of_warp[warp][lane] = sums;
  __syncthreads();
  if (warp != 0 || !inside) {
    return;
  }
  for (int w = 1; w < kWarps; ++w) {
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      sums.at[j] += of_warp[w][lane].at[j];
    }
  }
  write_row(p, row, column, sums);
}

void clear(const KernelArgs& args, const TensorRef& to, int byte) {
  if (to.bytes() > 0) {
    cuda_check(cudaMemsetAsync(to.data, byte, static_cast<size_t>(to.bytes()), stream_of(args)),
               args.op, "clearing");
  }
}

// `map`: of embedding_grad_rows; null: the output is the whole table's.
void sum_gradient(const KernelArgs& args, int64_t vocabulary, int32_t* map) {
  const int64_t n = args.in[1].numel();
  const int64_t hidden = args.out[0].shape[1];
  const cudaStream_t stream = stream_of(args);
  if (vocabulary == 0 || (map == nullptr && hidden == 0)) {
    return;
  }
  if (n == 0 || map != nullptr) {
    clear(args, args.out[0], 0);
  }
  if (n == 0) {
    if (map != nullptr) {
      clear(args, args.out[1], 0xff);
    }
    return;
  }
  if (vocabulary >= INT32_MAX) {
    throw ShapeError(args.op, "the table has {} rows, at most {} are possible", vocabulary,
                     INT32_MAX - 1);
  }
  const EmbeddingScratch scratch = embedding_scratch(n, vocabulary, hidden, args.out[0].dtype);
  expect_workspace(args, scratch.bytes);
  const auto at = [&]<typename U>(int64_t offset, U*) {
    return reinterpret_cast<U*>(static_cast<std::byte*>(args.workspace) + offset);
  };
  uint32_t* const word = nullptr;
  uint32_t* totals = at(scratch.totals, word);
  uint32_t* counts = at(scratch.counts, word);
  uint32_t* bases = at(scratch.bases, word);
  uint32_t* ranks = at(scratch.ranks, word);
  uint32_t* order = at(scratch.order, word);
  auto* rows = at(scratch.rows, static_cast<int32_t*>(nullptr));
  const Ids ids{args.in[1].as<int64_t>(), n, vocabulary, args.attr<EmbeddingAttrs>().padding};

  cuda_check(
      cudaMemsetAsync(totals, 0, static_cast<size_t>(scratch.bases - scratch.totals), stream),
      args.op, "clearing");
  const unsigned id_blocks = blocks_for(n, kThreads);
  rank_kernel<<<id_blocks, kThreads, 0, stream>>>(ids, scratch.tile, ranks, counts, totals);
  check_launch(args.op);
  place_rows_kernel<<<blocks_for(vocabulary, kScanThreads), kScanThreads, 0, stream>>>(
      vocabulary, scratch.tiles, totals, counts, bases, map);
  check_launch(args.op);
  if (hidden == 0) {
    return;
  }
  sort_kernel<<<id_blocks, kThreads, 0, stream>>>(ids, scratch.tile, ranks, counts, order, rows);
  check_launch(args.op);
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const Sums<T> sums{.vocabulary = vocabulary,
                       .hidden = hidden,
                       .bases = bases,
                       .order = order,
                       .rows = rows,
                       .dy = args.in[0].as<T>(),
                       .dtable = args.out[0].as<T>(),
                       .partials = at(scratch.partials, static_cast<acc_t<T>*>(nullptr)),
                       .compact = map != nullptr};
    const auto launch = [&]<int kV>() {
      const int64_t runs = blocks_for(n, kRun);
      const int64_t strips = blocks_for(hidden, int64_t{kWarp} * kV);
      const unsigned run_blocks = blocks_for(runs * strips, kWarps);
      const unsigned row_blocks =
          map == nullptr ? blocks_for(vocabulary, kWarps * kClearedRows) : 0;
      sum_kernel<kV><<<blocks_for(int64_t{run_blocks} + row_blocks, 1), kThreads, 0, stream>>>(
          sums, run_blocks, strips);
      check_launch(args.op);
      const dim3 grid(static_cast<unsigned>(runs), static_cast<unsigned>(strips));
      join_kernel<kV><<<grid, kThreads, 0, stream>>>(sums);
      check_launch(args.op);
    };
    hidden % kWide<T> == 0 ? launch.template operator()<kWide<T>>()
                           : launch.template operator()<1>();
  });
}

}  // namespace

void embedding_grad_cuda(const KernelArgs& args) {
  sum_gradient(args, args.out[0].shape[0], nullptr);
}
void embedding_grad_rows_cuda(const KernelArgs& args) {
  sum_gradient(args, args.out[1].shape[0], args.out[1].as<int32_t>());
}

}  // namespace lithe
