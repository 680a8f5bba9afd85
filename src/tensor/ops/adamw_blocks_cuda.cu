// AdamW with moments in 8 bits (moment_codes.h): one pass decodes, updates and codes anew. A warp
// works on one block of moments at a time, so that their scales are found by shuffles alone.
#include "tensor/ops/adamw_cuda.h"
#include "tensor/ops/moment_codes.h"
#include "tensor/ops/update_dtypes.h"

namespace lithe::device {
namespace {

constexpr int kV = 4;                                    // elements of a pack
constexpr int kPacks = kMomentBlock / (kWarp * kV);      // of a thread, in one block of moments
constexpr int kWarps = kUpdateThreads / kWarp;           // blocks of moments at a time
constexpr int kUnroll = 2;                               // of which loads are under way
constexpr int kBatch = kWarps * kUnroll * kMomentBlock;  // elements
static_assert(kMomentBlock % (kWarp * kV) == 0 && kUpdateChunk % kBatch == 0);

// One chunk of one tensor.
template <typename T, typename G, bool kMeasured>
class BlockwiseChunk {
  using A = acc_t<T>;

 public:
  __device__ BlockwiseChunk(const AdamWCommon& p, const AdamWTensor& tensor, int64_t begin)
      : p_(p),
        tensor_(tensor),
        begin_(begin),
        w_(static_cast<T*>(tensor.w) + begin),
        codes_(static_cast<uint8_t*>(tensor.m) + 2 * begin),
        scales_(static_cast<float*>(tensor.v) + 2 * (begin / kMomentBlock)),
        rule_(p.attrs.measures) {}

  // The first operands are on their way while thread 0 prepares the factors.
  __device__ ChunkSums run(int count, AdamWFactors<A>& shared) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    ChunkSums sums;
    for (int batch = 0; batch * kBatch < count; ++batch) {
      Operands in[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        in[u] = read((batch * kUnroll + u) * kWarps + warp, count);
      }
      if (batch == 0) {
        if (threadIdx.x == 0) {
          shared = prepare<A>(p_, tensor_);
        }
        __syncthreads();
        factors_ = shared;
        if (factors_.stays) {
          return sums;
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        update(in[u], (batch * kUnroll + u) * kWarps + warp, count, sums);
      }
    }
    return sums;
  }

 private:
  struct Operands {
    Pack<G, kV> gradient[kPacks];
    Pack<T, kV> w[kPacks];
    Pack<uint8_t, kV> m[kPacks];
    Pack<uint8_t, kV> root[kPacks];
    Pack<float, 2> scale;
  };

  // Where a pack begins in its block of moments.
  __device__ static int at(int pack) {
    return (pack * kWarp + static_cast<int>(threadIdx.x) % kWarp) * kV;
  }

  // `block` of the chunk; past its end everything is zero.
  __device__ Operands read(int block, int count) const {
    Operands in{};
    if (block * kMomentBlock >= count) {
      return in;
    }
    const uint8_t* codes = codes_ + 2 * block * kMomentBlock;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int i = block * kMomentBlock + at(k);
      const int inside = count - i;
      if (!p_.attrs.no_gradient) {
        in.gradient[k] = load_gradient<kV, G>(tensor_.gradient, begin_, i, inside);
      }
      in.w[k] = load_some<kV>(w_ + i, inside);
      in.m[k] = load_some<kV>(codes + at(k), inside);
      in.root[k] = load_some<kV>(codes + kMomentBlock + at(k), inside);
    }
    in.scale = load<2>(scales_ + 2 * block);
    return in;
  }

  // All threads of a warp take part; what is past the end is zero and is not stored.
  __device__ void update(Operands& in, int block, int count, ChunkSums& sums) const {
    if (block * kMomentBlock >= count) {
      return;
    }
    const AdamWFactors<A>& f = factors_;
    Moments now[kPacks][kV];
    float largest_m = 0;
    float largest_root = 0;
    A squares = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int i = block * kMomentBlock + at(k);
      const int inside = count - i;
      Pack<A, kV> before;
      Pack<A, kV> after;
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        const A arrived = widen<A>(in.gradient[k].at[j]);
        now[k][j] =
            Moments::of_codes(in.m[k].at[j], in.root[k].at[j], in.scale.at[0], in.scale.at[1])
                .updated(static_cast<float>(f.scale) * static_cast<float>(arrived),
                         static_cast<float>(f.beta1), static_cast<float>(f.beta2),
                         static_cast<float>(f.rest1), static_cast<float>(f.rest2));
        const A step_size = f.rate * static_cast<A>(now[k][j].m) /
                            (static_cast<A>(now[k][j].root) * f.root + f.eps);
        before.at[j] = widen<A>(in.w[k].at[j]);
        after.at[j] = (f.before * before.at[j] - step_size) * f.after;
        in.w[k].at[j] = narrow<T>(after.at[j]);
        // Past the end the codes are those of zero, but a scale of infinity times zero is none.
        if (j < inside) {
          largest_m = fmaxf(largest_m, fabsf(now[k][j].m));
          largest_root = fmaxf(largest_root, now[k][j].root);
        }
        squares += arrived * arrived;
      }
      store_some(w_ + i, in.w[k], inside);
      store_copies(p_, tensor_, begin_ + i, in.w[k], inside);
      if constexpr (kMeasured) {
        if (p_.attrs.measures.change != ChangeMetric::none) {
          measure_change(rule_, before, after, inside, sums);
        }
      }
    }
    if constexpr (kMeasured) {
      sums.squares += static_cast<double>(squares);
    }
    largest_m = warp_reduce(largest_m, Largest{});
    largest_root = warp_reduce(largest_root, Largest{});
    store_codes(now, largest_m, largest_root, block, count);
  }

  __device__ void store_codes(const Moments (&now)[kPacks][kV], float largest_m, float largest_root,
                              int block, int count) const {
    const float over_m = over_scale(largest_m);
    const float over_root = over_scale(largest_root);
    const uint32_t key = rounding_key(begin_ / kMomentBlock + block, factors_.step);
    uint8_t* codes = codes_ + 2 * block * kMomentBlock;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      Pack<uint8_t, kV> m;
      Pack<uint8_t, kV> root;
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        const uint32_t random = scramble(key + static_cast<uint32_t>(at(k) + j));
        m.at[j] = code_of_momentum(now[k][j].m * over_m, random);
        root.at[j] = code_of_root(now[k][j].root * over_root, random);
      }
      const int inside = count - block * kMomentBlock - at(k);
      store_some(codes + at(k), m, inside);
      store_some(codes + kMomentBlock + at(k), root, inside);
    }
    // Behind the shuffles, so every thread has read the old ones.
    if (threadIdx.x % kWarp == 0) {
      store(scales_ + 2 * block, Pack<float, 2>{{largest_m, largest_root}});
    }
  }

  const AdamWCommon& p_;
  const AdamWTensor& tensor_;
  int64_t begin_;
  T* w_;
  uint8_t* codes_;
  float* scales_;
  ChangeRule<A> rule_;
  AdamWFactors<A> factors_;
};

template <typename T, typename G, bool kMeasured, typename Group>
__global__ void __launch_bounds__(kUpdateThreads)
    adamw_blocks_kernel(const __grid_constant__ Group p) {
  __shared__ AdamWFactors<acc_t<T>> factors;
  __shared__ bool shared_last;
  const int index = p.find();
  const AdamWTensor& tensor = p.tensor[index];
  const unsigned chunk = blockIdx.x - p.first[index];
  const int64_t begin = chunk * kUpdateChunk;
  const int64_t rest = tensor.n - begin;
  BlockwiseChunk<T, G, kMeasured> work(p.common, tensor, begin);
  const ChunkSums sums =
      work.run(static_cast<int>(rest < kUpdateChunk ? rest : kUpdateChunk), factors);
  finish_chunk<kMeasured>(p.common, tensor, chunk, p.first[index + 1] - p.first[index], sums,
                          shared_last);
}

}  // namespace

void launch_adamw_blocks(const KernelArgs& model, const AdamWCommon& common,
                         const std::vector<AdamWTensor>& tensors) {
  const DType weight = model.in[0].dtype;
  const DType gradient = common.attrs.no_gradient ? weight : model.in[1].dtype;
  dispatch_update(weight, gradient, model.op, [&]<typename T, typename G>() {
    launch_groups(common, tensors, [&]<typename Group>(const Group& group, unsigned blocks) {
      if (common.attrs.measures.any()) {
        adamw_blocks_kernel<T, G, true><<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
      } else {
        adamw_blocks_kernel<T, G, false><<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
      }
      check_launch(model.op);
    });
  });
}

}  // namespace lithe::device
