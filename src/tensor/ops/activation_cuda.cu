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
  struct Loaded {
    Words<T, kVector> upstream;
    Words<T, kVector> x;
  };
  __device__ Loaded load(int64_t at) const {
    return {load_or_words<kVector>(dy + at), load_or_words<kVector>(kept + at)};
  }
  __device__ void add(const Loaded& loaded, int64_t at, acc_t<T> (&sums)[1][kVector]) const {
    using A = acc_t<T>;
    if constexpr (kVector == 1) {
      const T out = ActivateBackward<kKind, T>{}(loaded.upstream.at[0], loaded.x.at[0]);
      sums[0][0] += widen<A>(out);
      dx[at] = out;
    } else {
      A v[kVector];
      A x[kVector];
      unpack<T>(loaded.upstream, v);
      unpack<T>(loaded.x, x);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if constexpr (std::is_same_v<T, double>) {
          v[j] *= activation_slope<kKind>(x[j]);
        } else {
          v[j] *= slope_fast<kKind>(x[j]);
        }
      }
      const uint4 out = pack<T>(v);
      store_words(dx + at, out);
      unpack<T>(out, v);  // as they are stored
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[0][j] += v[j];
      }
    }
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
                                                 args.out[0].as<T>()};
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
