#include "tensor/ops/residual_norm_cuda.h"

#include "tensor/core/tensor.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe {
namespace {

using namespace device;

template <typename T>
struct ResidualNorm {
  const T* y;
  const T* residual;
  const T* gamma;
  const T* beta;
  T* normed;
  T* sum;  // null: only its codes are kept
  acc_t<T>* mean;
  acc_t<T>* rstd;
  int64_t rows;
  int64_t size;
  acc_t<T> eps;
  NormDropout<acc_t<T>> dropout;
  CodeTo code = {};  // of the sum
};

template <typename Walk, bool kCoded, typename T>
__global__ void __launch_bounds__(Walk::kBlock, Walk::kResident)
    residual_norm_kernel(const ResidualNorm<T> p) {
  constexpr int kV = Walk::kVector;
  extern __shared__ uint4 shared[];
  const RowStage<Walk, T, 2> stage(shared);
  const int size = Walk::row_size(p.size);
  const float share = 1.0f / static_cast<float>(size);
  const int64_t step = Walk::row_step();
  int64_t row = Walk::first_row();
  const auto fetch = [&](int64_t r, int half) {
    if (r < p.rows) {
      stage.fetch(0, half, p.y + r * size, size);
      stage.fetch(1, half, p.residual + r * size, size);
    }
    __pipeline_commit();
  };
  fetch(row, 0);
  stage.load_parameter(0, p.gamma, size);
  stage.load_parameter(1, p.beta, size);
  const NormMask<float> mask(p.dropout);
  __syncthreads();
  for (int half = 0; row < p.rows; row += step, half ^= 1) {
    fetch(row + step, half ^ 1);
    const int64_t at = row * size;
    __pipeline_wait_prior(1);
    float v[Walk::kElements];
    float total = 0;
    const int64_t first = at + Walk::lane() * kV;
    Walk::for_packs(size, [&](int pack_index, int) {
      const int64_t own = first + pack_index * Walk::kStep;
      const auto bits = mask.template bits<kV>(own);
      float y[kV];
      float sum[kV];
      unpack<T>(stage.read(0, half, pack_index), y);
      unpack<T>(stage.read(1, half, pack_index), sum);
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        sum[j] += mask.kept(bits, j) ? y[j] * mask.scale() : 0.0f;
      }
      const uint4 rounded = pack<T>(sum);
      if (!kCoded || p.sum != nullptr) {
        store_words(p.sum + own, rounded);
      }
      unpack<T>(rounded, sum);
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        v[pack_index * kV + j] = sum[j];
        total += sum[j];
      }
    });
    if constexpr (kCoded) {
      float packs[Walk::kPacks][kV];
      bool inside[Walk::kPacks];
#pragma unroll
      for (int i = 0; i < Walk::kPacks; ++i) {
        inside[i] = Walk::kFull || (i * Walk::kThreads + Walk::lane()) * kV < size;
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          packs[i][j] = v[i * kV + j];
        }
      }
      encode_lanes(p.code, packs, first, Walk::kStep, inside);
    }
    const float mean = group_reduce<Walk::kThreads>(total, Sum{}) * share;
    float squares = 0;  // around the mean: the difference of two large sums would lose digits
    Walk::for_packs(size, [&](int pack_index, int) {
#pragma unroll
      for (int j = pack_index * kV; j < (pack_index + 1) * kV; ++j) {
        v[j] -= mean;
        squares += v[j] * v[j];
      }
    });
    const float rstd = rsqrtf(group_reduce<Walk::kThreads>(squares, Sum{}) * share + p.eps);
    Walk::for_packs(size, [&](int pack_index, int) {
      float gamma[kV];
      float beta[kV];
      unpack<T>(stage.parameter(0, pack_index), gamma);
      unpack<T>(stage.parameter(1, pack_index), beta);
      float normed[kV];
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        normed[j] = v[pack_index * kV + j] * rstd * gamma[j] + beta[j];
      }
      store_words(p.normed + first + pack_index * Walk::kStep, pack<T>(normed));
    });
    if (Walk::lane() == 0) {
      p.mean[row] = mean;
      p.rstd[row] = rstd;
    }
  }
}

// Any row: the sum is read again from where it was written.
template <typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock)
    residual_norm_plain_kernel(const ResidualNorm<T> p) {
  using A = acc_t<T>;
  constexpr int kThreads = Config::kThreads;
  const int64_t row = Config::row();
  if (row >= p.rows) {
    return;
  }
  const int64_t at = row * p.size;
  const A share = p.size == 0 ? A(0) : A(1) / static_cast<A>(p.size);
  const NormMask<A> mask(p.dropout);
  A total = 0;
  Config::for_columns(p.size, [&](int64_t i) {
    const A y = widen<A>(p.y[at + i]) * mask.factor(at + i);
    const T sum = narrow<T>(widen<A>(p.residual[at + i]) + y);
    p.sum[at + i] = sum;
    total += widen<A>(sum);
  });
  const A mean = group_reduce<kThreads>(total, Sum{}) * share;
  A squares = 0;
  Config::for_columns(p.size, [&](int64_t i) {
    const A d = widen<A>(p.sum[at + i]) - mean;
    squares += d * d;
  });
  const A rstd = rsqrt(group_reduce<kThreads>(squares, Sum{}) * share + p.eps);
  Config::for_columns(p.size, [&](int64_t i) {
    p.normed[at + i] = narrow<T>((widen<A>(p.sum[at + i]) - mean) * rstd * widen<A>(p.gamma[i]) +
                                 widen<A>(p.beta[i]));
  });
  if (Config::lane() == 0) {
    p.mean[row] = mean;
    p.rstd[row] = rstd;
  }
}

template <typename T>
void launch(const KernelArgs& args, const ResidualNorm<T>& p) {
  if (p.rows == 0) {
    return;
  }
  if constexpr (!std::is_same_v<T, double>) {
    if (const int64_t blocks = norm_blocks(p.rows, p.size, args.in[0].dtype); blocks > 0) {
      dispatch_norm_walk<T>(p.size, [&]<typename Walk>() {
        static_assert(RowStage<Walk, T, 2>::bytes(2) <= kMostSharedBytes);
        launch_shared(args, residual_norm_kernel<Walk, false, T>, static_cast<unsigned>(blocks),
                      Walk::kBlock, RowStage<Walk, T, 2>::bytes(2), p);
      });
      return;
    }
  }
  dispatch_plain_row(p.size, [&]<typename Config>() {
    const unsigned blocks = blocks_for(p.rows, Config::kRowsOfBlock);
    residual_norm_plain_kernel<Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(p);
    check_launch(args.op);
  });
}

template <typename T>
void launch_coded(const KernelArgs& args, const ResidualNorm<T>& p) {
  const int64_t blocks = norm_blocks(p.rows, p.size, args.in[0].dtype);
  dispatch_warp_walks<T>(p.size, [&]<typename Walk>() {
    launch_shared(args, residual_norm_kernel<Walk, true, T>, static_cast<unsigned>(blocks),
                  Walk::kBlock, RowStage<Walk, T, 2>::bytes(2), p);
  });
}

}  // namespace

void residual_norm_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormAttrs>();
  const Shape& shape = args.in[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    launch<T>(args, {.y = args.in[0].as<T>(),
                     .residual = args.in[1].as<T>(),
                     .gamma = args.in[2].as<T>(),
                     .beta = args.in[3].as<T>(),
                     .normed = args.out[0].as<T>(),
                     .sum = args.out[1].as<T>(),
                     .mean = args.out[2].as<A>(),
                     .rstd = args.out[3].as<A>(),
                     .rows = shape.product(0, shape.rank() - 1),
                     .size = shape.back(),
                     .eps = static_cast<A>(attrs.eps),
                     .dropout = norm_dropout<A>(args, attrs.dropout, 4)});
  });
}

void residual_norm_codes_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormCodesAttrs>();
  const Shape& shape = args.in[0].shape;
  expect_walked_in_codes(args, attrs.code);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, double>) {
      if (shape.numel() == 0) {
        return;
      }
      launch_coded<T>(args, {.y = args.in[0].as<T>(),
                             .residual = args.in[1].as<T>(),
                             .gamma = args.in[2].as<T>(),
                             .beta = args.in[3].as<T>(),
                             .normed = args.out[0].as<T>(),
                             .sum = attrs.sum ? args.out[5].as<T>() : nullptr,
                             .mean = args.out[1].as<float>(),
                             .rstd = args.out[2].as<float>(),
                             .rows = shape.product(0, shape.rank() - 1),
                             .size = shape.back(),
                             .eps = static_cast<float>(attrs.norm.eps),
                             .dropout = norm_dropout<float>(args, attrs.norm.dropout, 4),
                             .code = code_to(attrs.code, args.out.subspan(3, 2))});
    }
  });
}

}  // namespace lithe
