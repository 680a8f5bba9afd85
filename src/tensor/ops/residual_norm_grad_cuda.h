// The gradient of residual_norm, of x itself or of its code: kernels and their launches.
// Device-only.
#pragma once

#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/residual_norm.h"
#include "tensor/ops/residual_norm_cuda.h"

namespace lithe::device {

// What is absent or not wanted is null.
template <typename T>
struct ResidualNormGrad {
  const T* dnormed;
  const T* dsum;
  const T* x;  // null: decoded from its code
  const acc_t<T>* mean;
  const acc_t<T>* rstd;
  const T* gamma;
  T* total;
  T* dy;
  acc_t<T>* partial;  // [blocks, sums, size]: each block's sums for gamma, beta and the bias
  int64_t rows;
  int64_t size;
  NormDropout<acc_t<T>> dropout;
  CodeFrom code = {};
};

// Tensors whose rows are staged; as many at least as the block's sums take the place of.
constexpr int staged_rows(int sums, bool dsum) { return sums == 3 || dsum ? 3 : 2; }

// A block's sums: its groups' one after the other, always in the same order. `shared` is as large
// as the staged rows, which nobody needs any more.
template <typename Walk, int kSums, typename T>
__device__ inline void store_block_sums(const ResidualNormGrad<T>& p, void* shared,
                                        const float (&sums)[kSums][Walk::kElements]) {
  const int size = Walk::row_size(p.size);
  float* to = p.partial + static_cast<int64_t>(blockIdx.x) * kSums * size;
  float* own = to;
  if constexpr (Walk::kRowsOfBlock > 1) {
    static_assert(RowStage<Walk, T, 1>::row_bytes(staged_rows(kSums, false)) >=
                  sizeof(float) * kSums * Walk::kElements * Walk::kBlock);
    __syncthreads();
    own = static_cast<float*>(shared) + threadIdx.x / Walk::kThreads * kSums * size;
  }
  Walk::for_packs(size, [&](int pack_index, int column) {
#pragma unroll
    for (int j = 0; j < Walk::kVector; j += 4) {
      const int e = pack_index * Walk::kVector + j;
#pragma unroll
      for (int s = 0; s < kSums; ++s) {
        *reinterpret_cast<float4*>(own + s * size + column + j) =
            make_float4(sums[s][e], sums[s][e + 1], sums[s][e + 2], sums[s][e + 3]);
      }
    }
  });
  if constexpr (Walk::kRowsOfBlock > 1) {
    __syncthreads();
    const float* from = static_cast<const float*>(shared);
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < kSums * size; i += Walk::kBlock) {
      float total = from[i];
#pragma unroll
      for (int g = 1; g < Walk::kRowsOfBlock; ++g) {
        total += from[g * kSums * size + i];
      }
      to[i] = total;
    }
  }
}

// Which sums over rows a block makes: beta's and gamma's or the bias's or both, or none.
template <bool kG, bool kB>
struct NormSums {
  static constexpr bool kGamma = kG;
  static constexpr bool kBias = kB;
  static constexpr bool kAny = kG || kB;
  static constexpr int kCount = kAny ? norm_sums(kG, kB) : 0;
  // Their order.
  static constexpr int kBetaAt = 0;
  static constexpr int kGammaAt = 1;
  static constexpr int kBiasAt = kCount - 1;
};

// With u = dnormed * gamma, d = x - mean and xhat = d rstd: total = rstd (u - mean(u) - xhat mean(u
// xhat)) + dsum; gamma's gradient is the sum of dnormed xhat, beta's of dnormed, the bias's that of
// y's gradient.
template <typename Walk, typename Sums, bool kCoded, typename T>
__global__ void __launch_bounds__(Walk::kBlock, Walk::kResident)
    residual_norm_grad_kernel(const ResidualNormGrad<T> p) {
  constexpr int kV = Walk::kVector;
  // Where registers are left beside the sums.
  constexpr bool kKeepsU = !Sums::kGamma && Walk::kElements <= 24;
  extern __shared__ uint4 shared[];
  const RowStage<Walk, T, 1> stage(shared);
  const int size = Walk::row_size(p.size);
  const float share = 1.0f / static_cast<float>(size);
  const int64_t step = Walk::row_step();
  int64_t row = Walk::first_row();
  float next_mean = 0;
  float next_rstd = 0;
  const auto fetch = [&](int64_t r, int half) {
    if (r < p.rows) {
      next_mean = p.mean[r];
      next_rstd = p.rstd[r];
      stage.fetch(0, half, p.dnormed + r * size, size);
      if constexpr (kCoded) {
        stage.fetch_codes(1, half, p.code, r * size, size);
      } else {
        stage.fetch(1, half, p.x + r * size, size);
      }
      if (p.dsum != nullptr) {
        stage.fetch(2, half, p.dsum + r * size, size);
      }
    }
    __pipeline_commit();
  };
  fetch(row, 0);
  stage.load_parameter(0, p.gamma, size);
  const NormMask<float> mask(p.dropout);
  float sums[Sums::kAny ? Sums::kCount : 1][Walk::kElements] = {};
  __syncthreads();
  for (int half = 0; row < p.rows; row += step, half ^= 1) {
    const float mean = next_mean;
    const float rstd = next_rstd;
    fetch(row + step, half ^ 1);
    const int64_t at = row * size;
    __pipeline_wait_prior(1);
    float shift = 0;
    float slope = 0;
    float of_u[kKeepsU ? Walk::kElements : 1];
    Walk::for_packs(size, [&](int pack_index, int) {
      float dnormed[kV];
      float x[kV];
      float gamma[kV];
      unpack<T>(stage.read(0, half, pack_index), dnormed);
      uint4 words;
      if constexpr (kCoded) {
        words = stage.decode(1, half, p.code, at, pack_index);
        stage.write(1, half, pack_index, words);  // for the second pass
      } else {
        words = stage.read(1, half, pack_index);
      }
      unpack<T>(words, x);
      unpack<T>(stage.parameter(0, pack_index), gamma);
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        const float d = x[j] - mean;
        const float u = dnormed[j] * gamma[j];
        shift += u;
        slope = fmaf(u, d, slope);
        if constexpr (kKeepsU) {
          of_u[pack_index * kV + j] = u;
        }
        if constexpr (Sums::kGamma) {
          sums[Sums::kGammaAt][pack_index * kV + j] += dnormed[j] * (d * rstd);
        }
        if constexpr (Sums::kAny) {
          sums[Sums::kBetaAt][pack_index * kV + j] += dnormed[j];
        }
      }
    });
    group_sums<Walk::kThreads>(shift, slope);
    // total = rstd u + level + tilt d.
    const float level = -rstd * (shift * share);
    const float tilt = -rstd * (rstd * (rstd * (slope * share)));
    const int64_t first = at + Walk::lane() * kV;
    Walk::for_packs(size, [&](int pack_index, int) {
      const int64_t own = first + pack_index * Walk::kStep;
      float total[kV];
      float x[kV];
      float other[kV];
      unpack<T>(stage.read(1, half, pack_index), x);
      if constexpr (!kKeepsU) {
        unpack<T>(stage.read(0, half, pack_index), total);
        unpack<T>(stage.parameter(0, pack_index), other);
      }
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        const float u = kKeepsU ? of_u[kKeepsU ? pack_index * kV + j : 0] : total[j] * other[j];
        total[j] = fmaf(u, rstd, fmaf(x[j] - mean, tilt, level));
      }
      if (p.dsum != nullptr) {
        unpack<T>(stage.read(2, half, pack_index), other);
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          total[j] += other[j];
        }
      }
      uint4 words = pack<T>(total);
      if (p.total != nullptr) {
        store_words(p.total + own, words);
      }
      if (p.dy != nullptr) {
        const auto bits = mask.template bits<kV>(own);
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          total[j] = mask.kept(bits, j) ? total[j] * mask.scale() : 0.0f;
        }
        words = pack<T>(total);
        store_words(p.dy + own, words);
      }
      if constexpr (Sums::kBias) {
        unpack<T>(words, total);
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          sums[Sums::kBiasAt][pack_index * kV + j] += total[j];
        }
        if constexpr (Walk::kFull) {
          __syncwarp();  // or packs are worked on at once, for which there are no registers
        }
      }
    });
  }
  if constexpr (Sums::kAny) {
    store_block_sums<Walk, Sums::kCount, T>(p, stage.rows(), sums);
  }
}

inline constexpr int kJoinLanes = 32;   // threads of a block along the columns
inline constexpr int kJoinSlices = 16;  // and along the blocks' sums

// The wanted gradients, and which of a block's sums each of them is.
template <typename T>
struct JoinedSums {
  int count = 0;
  int sum[3] = {};
  T* to[3] = {};
  void add(int which, T* gradient) {
    if (gradient != nullptr) {
      sum[count] = which;
      to[count++] = gradient;
    }
  }
};

// Joins the blocks' sums; blockIdx.y counts the wanted ones. `row` elements of partial a block.
template <typename T, typename A>
__global__ void __launch_bounds__(kJoinLanes* kJoinSlices)
    join_block_sums_kernel(int64_t blocks, int64_t row, int64_t size, const A* partial,
                           const JoinedSums<T> joined) {
  __shared__ A of_slice[kJoinSlices][kJoinLanes];
  const int lane = static_cast<int>(threadIdx.x);
  const int slice = static_cast<int>(threadIdx.y);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kJoinLanes + lane;
  A total = 0;
  if (column < size) {
    const A* from = partial + joined.sum[blockIdx.y] * size + column;
#pragma unroll 8
    for (int64_t block = slice; block < blocks; block += kJoinSlices) {
      total += from[block * row];
    }
  }
  of_slice[slice][lane] = total;
  __syncthreads();
  if (slice == 0 && column < size) {
#pragma unroll
    for (int s = 1; s < kJoinSlices; ++s) {
      total += of_slice[s][lane];
    }
    joined.to[blockIdx.y][column] = narrow<T>(total);
  }
}

template <typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock)
    residual_norm_grad_plain_kernel(const ResidualNormGrad<T> p) {
  using A = acc_t<T>;
  const int64_t row = Config::row();
  if (row >= p.rows) {
    return;
  }
  const int64_t at = row * p.size;
  const A share = A(1) / static_cast<A>(p.size);
  const A mean = p.mean[row];
  const A rstd = p.rstd[row];
  const NormMask<A> mask(p.dropout);
  A shift = 0;
  A slope = 0;
  Config::for_columns(p.size, [&](int64_t i) {
    const A u = widen<A>(p.dnormed[at + i]) * widen<A>(p.gamma[i]);
    shift += u;
    slope += u * ((widen<A>(p.x[at + i]) - mean) * rstd);
  });
  group_sums<Config::kThreads>(shift, slope);
  shift *= share;
  slope *= share;
  Config::for_columns(p.size, [&](int64_t i) {
    const A xhat = (widen<A>(p.x[at + i]) - mean) * rstd;
    A v = rstd * (widen<A>(p.dnormed[at + i]) * widen<A>(p.gamma[i]) - shift - xhat * slope);
    if (p.dsum != nullptr) {
      v += widen<A>(p.dsum[at + i]);
    }
    if (p.total != nullptr) {
      p.total[at + i] = narrow<T>(v);
    }
    if (p.dy != nullptr) {
      p.dy[at + i] = narrow<T>(v * mask.factor(at + i));
    }
  });
}

// Terms of the parameters' gradients, for column_sum.
template <int kVector, typename T>
struct ParameterTerm {
  const T* dnormed;
  const T* x;
  const acc_t<T>* mean;
  const acc_t<T>* rstd;
  int64_t columns;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[2][kVector]) const {
    using A = acc_t<T>;
    const Pack<T, kVector> d = load<kVector>(dnormed + row * columns + column);
    const Pack<T, kVector> v = load<kVector>(x + row * columns + column);
    const A center = mean[row];
    const A scale = rstd[row];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A upstream = widen<A>(d.at[j]);
      sums[0][j] += upstream * ((widen<A>(v.at[j]) - center) * scale);
      sums[1][j] += upstream;
    }
  }
};

// Terms of the bias's gradient.
template <int kVector, typename T>
struct BiasTerm {
  const T* dy;
  int64_t columns;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[1][kVector]) const {
    const Pack<T, kVector> d = load<kVector>(dy + row * columns + column);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sums[0][j] += widen<acc_t<T>>(d.at[j]);
    }
  }
};

// Rows that are not walked. The parameters come first, as x may be overwritten behind them; the
// bias reads what was written.
template <typename T>
void launch_plain(const KernelArgs& args, const ResidualNormGrad<T>& p, T* dgamma, T* dbeta,
                  T* dbias) {
  using A = acc_t<T>;
  if (dgamma != nullptr || dbeta != nullptr) {
    // column_sum makes both sums; the unwanted one goes behind the workspace that it uses.
    expect_workspace(args, p.size * static_cast<int64_t>(3 * sizeof(A)));
    KernelArgs given = args;
    given.workspace_bytes -= p.size * static_cast<int64_t>(sizeof(A));
    given.workspace_bytes -= given.workspace_bytes % static_cast<int64_t>(sizeof(A));
    T* spare = reinterpret_cast<T*>(static_cast<char*>(args.workspace) + given.workspace_bytes);
    const auto term = [&]<int kVector>() {
      return ParameterTerm<kVector, T>{p.dnormed, p.x, p.mean, p.rstd, p.size};
    };
    column_sum<2, T>(given, p.rows, p.size, term, dgamma == nullptr ? spare : dgamma,
                     dbeta == nullptr ? spare : dbeta);
  }
  if (p.rows > 0 && p.size > 0) {
    dispatch_plain_row(p.size, [&]<typename Config>() {
      const unsigned blocks = blocks_for(p.rows, Config::kRowsOfBlock);
      residual_norm_grad_plain_kernel<Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(p);
      check_launch(args.op);
    });
  }
  if (dbias != nullptr) {
    const auto term = [&]<int kVector>() {
      return BiasTerm<kVector, T>{p.dy != nullptr ? p.dy : p.total, p.size};
    };
    column_sum<1, T>(args, p.rows, p.size, term, dbias, nullptr);
  }
}

template <bool kCoded, typename T>
void launch_walk(const KernelArgs& args, ResidualNormGrad<T> p, int64_t blocks, T* dgamma, T* dbeta,
                 T* dbias) {
  using A = acc_t<T>;
  const bool any = dgamma != nullptr || dbeta != nullptr || dbias != nullptr;
  const int sums = any ? norm_sums(dgamma != nullptr, dbias != nullptr) : 0;
  if (any) {
    expect_workspace(args, blocks * sums * p.size * static_cast<int64_t>(sizeof(A)));
    p.partial = static_cast<A*>(args.workspace);
  }
  JoinedSums<T> joined;
  const auto launch_with = [&]<typename Walk, typename Sums>() {
    static_assert(RowStage<Walk, T, 1>::bytes(3) <= kMostSharedBytes);
    joined.add(Sums::kGammaAt, dgamma);
    joined.add(Sums::kBetaAt, dbeta);
    joined.add(Sums::kBiasAt, dbias);
    const size_t shared = RowStage<Walk, T, 1>::bytes(staged_rows(sums, p.dsum != nullptr));
    launch_shared(args, residual_norm_grad_kernel<Walk, Sums, kCoded, T>,
                  static_cast<unsigned>(blocks), Walk::kBlock, shared, p);
  };
  const auto walk = [&]<typename Walk>() {
    if (!any) {
      launch_with.template operator()<Walk, NormSums<false, false>>();
    } else if (dgamma == nullptr) {
      launch_with.template operator()<Walk, NormSums<false, true>>();
    } else if (dbias == nullptr) {
      launch_with.template operator()<Walk, NormSums<true, false>>();
    } else {
      launch_with.template operator()<Walk, NormSums<true, true>>();
    }
  };
  if constexpr (kCoded) {
    dispatch_warp_walks<T>(p.size, walk);
  } else {
    dispatch_norm_walk<T>(p.size, walk);
  }
  if (any) {
    const dim3 grid(blocks_for(p.size, kJoinLanes), static_cast<unsigned>(joined.count));
    join_block_sums_kernel<<<grid, dim3(kJoinLanes, kJoinSlices), 0, stream_of(args)>>>(
        blocks, sums * p.size, p.size, p.partial, joined);
    check_launch(args.op);
  }
}

// x null: of its code.
template <typename T>
ResidualNormGrad<T> residual_norm_grad_params(const KernelArgs& args,
                                              const ResidualNormGradAttrs& attrs, const T* x,
                                              T* total, T* dy) {
  using A = acc_t<T>;
  const Shape& shape = args.in[0].shape;
  return {.dnormed = args.in[0].as<T>(),
          .dsum = args.in.size() > 5 ? args.in[5].as<T>() : nullptr,
          .x = x,
          .mean = args.in[2].as<A>(),
          .rstd = args.in[3].as<A>(),
          .gamma = args.in[4].as<T>(),
          .total = total,
          .dy = dy,
          .partial = nullptr,
          .rows = shape.product(0, shape.rank() - 1),
          .size = shape.back(),
          .dropout = norm_dropout<A>(args, attrs.dropout, 6)};
}

// The outputs, null where they are not asked for.
template <typename T>
struct ResidualNormGradOut {
  ResidualNormGradOut(const KernelArgs& args, const ResidualNormGradAttrs& attrs) {
    size_t output = 0;
    const auto take = [&](bool wanted) { return wanted ? args.out[output++].as<T>() : nullptr; };
    total = take(attrs.sum);
    dy = take(attrs.y);
    dgamma = take(attrs.gamma);
    dbeta = take(attrs.beta);
    dbias = take(attrs.bias);
  }
  T* total;
  T* dy;
  T* dgamma;
  T* dbeta;
  T* dbias;
};

}  // namespace lithe::device
