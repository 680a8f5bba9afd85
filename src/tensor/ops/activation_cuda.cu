#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_activation.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

// dx and its sums by column in one pass: column_sum (cuda_column_sum.h) walks over dy.
template <Activation kKind, int kVector, typename T>
struct BackwardTerm {
  const T* dy;
  const T* kept;
  T* dx;
  int64_t columns;
  struct Loaded {
    Pack<T, kVector> upstream;
    Pack<T, kVector> x;
  };
  __device__ Loaded load(int64_t row, int64_t column) const {
    const int64_t at = row * columns + column;
    return {device::load<kVector>(dy + at), device::load<kVector>(kept + at)};
  }
  __device__ void add(const Loaded& loaded, int64_t row, int64_t column,
                      acc_t<T> (&sums)[1][kVector]) const {
    Pack<T, kVector> out;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      out.at[j] = ActivateBackward<kKind, T>{}(loaded.upstream.at[j], loaded.x.at[j]);
      sums[0][j] += widen<acc_t<T>>(out.at[j]);
    }
    store(dx + row * columns + column, out);
  }
};

}  // namespace

void activation_cuda(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    dispatch_activation(args.attr<ActivationAttrs>().kind, [&]<Activation kKind>() {
      map(args, args.out[0].numel(), Activate<kKind, T>{}, args.out[0].as<T>(), args.in[0].as<T>());
    });
  });
}

void activation_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationAttrs>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    dispatch_activation(attrs.kind, [&]<Activation kKind>() {
      if (attrs.column_sum) {
        const Shape& shape = args.in[0].shape;
        const auto term = [&]<int kVector>() {
          return BackwardTerm<kKind, kVector, T>{args.in[0].as<T>(), args.in[1].as<T>(),
                                                 args.out[0].as<T>(), shape.back()};
        };
        column_sum<1, T>(args, shape.product(0, shape.rank() - 1), shape.back(), term,
                         args.out[1].as<T>(), static_cast<T*>(nullptr));
        return;
      }
      map(args, args.out[0].numel(), ActivateBackward<kKind, T>{}, args.out[0].as<T>(),
          args.in[0].as<T>(), args.in[1].as<T>());
    });
  });
}

}  // namespace lithe
