#include "tensor/core/tensor.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/update_sums_cuda.h"

namespace lithe {
namespace {

using namespace device;

struct SquaresTensor {
  int64_t n;  // of the whole gradient
  GradientPlace x;
  ChunkSums* partial;
};
struct SquaresCommon {};

// The sum of squares of one chunk of one tensor.
template <typename T, typename Group>
__global__ void __launch_bounds__(kUpdateThreads) squares_kernel(const __grid_constant__ Group p) {
  using A = acc_t<T>;
  constexpr int kV = kWide<T>;
  constexpr int kUnroll = 4;
  using Walk = ChunkWalk<kV, kUnroll>;
  const int index = p.find();
  const SquaresTensor& tensor = p.tensor[index];
  const unsigned chunk = blockIdx.x - p.first[index];
  const int64_t begin = chunk * kUpdateChunk;
  const int64_t rest = tensor.n - begin;
  ChunkSums sums;
  const auto run = [&]<bool kWhole>(int count) {
    for (int batch = 0; batch * Walk::kBatch < count; ++batch) {
      Pack<T, kV> in[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = Walk::at(batch, u);
        in[u] = load_gradient<kV, T>(tensor.x, begin, i, Walk::template inside<kWhole>(i, count));
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        A squares = 0;
#pragma unroll
        for (int j = 0; j < kV; ++j) {
          const A value = widen<A>(in[u].at[j]);
          squares += value * value;
        }
        sums.squares += static_cast<double>(squares);
      }
    }
  };
  if (rest >= kUpdateChunk) {
    run.template operator()<true>(static_cast<int>(kUpdateChunk));
  } else {
    run.template operator()<false>(static_cast<int>(rest));
  }
  sums.squares = group_reduce<kUpdateThreads>(sums.squares, Sum{});
  if (threadIdx.x == 0 && rest > 0) {
    tensor.partial[chunk] = sums;
  }
}

__global__ void __launch_bounds__(kUpdateThreads) join_kernel(const __grid_constant__ JoinGroup p) {
  const JoinTensor& tensor = p.tensor[blockIdx.x];
  join_sums(tensor.sums, p.measures, tensor.elements);
}

// As many sums of squares as one launch takes. Between launches the running sum travels in the two
// fp32 outputs, as a rounded value and its remainder.
struct ClipInputs {
  static constexpr int kMost = 240;
  Scalar sums[kMost];
  int count = 0;
};

__global__ void __launch_bounds__(kWarp) clip_kernel(const ClipInputs in, bool starts, bool ends,
                                                     double max_norm, float* norm, float* factor) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < in.count; i += kWarp) {
    sum += in.sums[i].value();
  }
  sum = warp_reduce(sum, Sum{});
  if (threadIdx.x != 0) {
    return;
  }
  if (!starts) {
    sum += static_cast<double>(*norm) + static_cast<double>(*factor);
  }
  if (ends) {
    const double root = sqrt(sum);
    const double ratio = max_norm / (root + 1e-6);
    *norm = static_cast<float>(root);
    *factor = static_cast<float>(ratio > 1 ? 1 : ratio);  // NaN passes
  } else {
    *norm = static_cast<float>(sum);
    *factor = static_cast<float>(sum - static_cast<double>(*norm));
  }
}

bool same_dtype(const KernelArgs& a, const KernelArgs& b) { return a.in[0].dtype == b.in[0].dtype; }

}  // namespace

void device::launch_joins(const KernelArgs& args, const UpdateMeasures& measures,
                          const std::vector<JoinTensor>& tensors) {
  for (size_t begin = 0; begin < tensors.size(); begin += JoinGroup::kMost) {
    const size_t count = std::min<size_t>(tensors.size() - begin, JoinGroup::kMost);
    JoinGroup group{.measures = measures};
    std::copy_n(tensors.begin() + static_cast<int64_t>(begin), count, group.tensor);
    join_kernel<<<static_cast<unsigned>(count), kUpdateThreads, 0, stream_of(args)>>>(group);
    check_launch(args.op);
  }
}

void sum_squares_group_cuda(std::span<const KernelArgs> calls) {
  const UpdateMeasures measures{.squares = true};
  std::vector<JoinTensor> joins;
  for_alike(calls, same_dtype, [&](std::span<const KernelArgs* const> alike) {
    const KernelArgs& model = *alike.front();
    std::vector<SquaresTensor> tensors;
    for (const KernelArgs* call : alike) {
      const UpdateSums sums = sums_of(*call, measures);
      const GradientPlace place = GradientPlace::of(*call, 0, 1);
      const int64_t n =
          place.rows == nullptr ? call->in[0].numel() : call->in[1].numel() * place.hidden;
      joins.push_back({n, sums});
      if (n > 0) {
        tensors.push_back({n, place, sums.partial});
      }
    }
    dispatch_floating(model.in[0].dtype, model.op, [&]<typename T>() {
      launch_groups(SquaresCommon{}, tensors,
                    [&]<typename Group>(const Group& group, unsigned blocks) {
                      squares_kernel<T><<<blocks, kUpdateThreads, 0, stream_of(model)>>>(group);
                      check_launch(model.op);
                    });
    });
  });
  launch_joins(calls.front(), measures, joins);
}
void sum_squares_cuda(const KernelArgs& args) { sum_squares_group_cuda({&args, 1}); }

void clip_factor_cuda(const KernelArgs& args) {
  const double max_norm = args.attr<ClipAttrs>().max_norm;
  const size_t count = args.in.size();
  for (size_t begin = 0; begin < count; begin += ClipInputs::kMost) {
    const size_t end = std::min(begin + ClipInputs::kMost, count);
    ClipInputs in;
    for (size_t i = begin; i < end; ++i) {
      in.sums[in.count++] = Scalar::of(args.in, i);
    }
    clip_kernel<<<1, kWarp, 0, stream_of(args)>>>(in, begin == 0, end == count, max_norm,
                                                  args.out[0].as<float>(), args.out[1].as<float>());
    check_launch(args.op);
  }
}

}  // namespace lithe
