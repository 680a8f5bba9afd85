// A pack of neighbours of one row a thread.
#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/normalized_rows.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// mean is null: rows are spread, not normalised.
template <int kV, typename T>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(int64_t packs, int64_t packs_of_row, const T* x, const acc_t<T>* mean,
                const acc_t<T>* rstd, T* y) {
  using A = acc_t<T>;
  const int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack >= packs) {
    return;
  }
  const int64_t row = pack / packs_of_row;
  Pack<T, kV> values = load<kV>(x + pack * kV);
  const A r = rstd[row];
  const A m = mean == nullptr ? A(0) : mean[row];
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    const A value = widen<A>(values.at[j]);
    values.at[j] = narrow<T>(mean == nullptr ? value / r : (value - m) * r);
  }
  store(y + pack * kV, values);
}

template <typename T>
void launch(const KernelArgs& args, const acc_t<T>* mean, const acc_t<T>* rstd) {
  const int64_t n = args.in[0].numel();
  const int64_t width = args.in[0].shape.back();
  const auto run = [&]<int kV>() {
    rows_kernel<kV, T><<<blocks_for(n / kV, kThreads), kThreads, 0, stream_of(args)>>>(
        n / kV, width / kV, args.in[0].as<T>(), mean, rstd, args.out[0].as<T>());
  };
  width % kWide<T> == 0 ? run.template operator()<kWide<T>>() : run.template operator()<1>();
  check_launch(args.op);
}

}  // namespace

void normalize_rows_cuda(const KernelArgs& args) {
  if (args.in[0].numel() == 0) {
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    launch<T>(args, args.in[1].as<acc_t<T>>(), args.in[2].as<acc_t<T>>());
  });
}

void spread_rows_cuda(const KernelArgs& args) {
  if (args.in[0].numel() == 0) {
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op,
                    [&]<typename T>() { launch<T>(args, nullptr, args.in[1].as<acc_t<T>>()); });
}

}  // namespace lithe
