#include "tensor/core/tensor.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/activation_math.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/parallel.h"

namespace lithe {

void activation_cpu(const KernelArgs& args) {
  const Activation kind = args.attr<ActivationAttrs>().kind;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    dispatch_activation(kind, [&]<Activation kKind>() {
      parallel_for(args.out[0].numel(), 8, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          y[i] = T(activate<kKind>(static_cast<acc_t<T>>(x[i])));
        }
      });
    });
  });
}

void activation_grad_cpu(const KernelArgs& args) {
  const Activation kind = args.attr<ActivationAttrs>().kind;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* dy = args.in[0].as<T>();
    const T* kept = args.in[1].as<T>();
    T* dx = args.out[0].as<T>();
    dispatch_activation(kind, [&]<Activation kKind>() {
      parallel_for(args.out[0].numel(), 8, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          using A = acc_t<T>;
          dx[i] = T(static_cast<A>(dy[i]) * activation_slope<kKind>(static_cast<A>(kept[i])));
        }
      });
    });
    if (args.attr<ActivationAttrs>().column_sum) {
      sum_rows(args, args.out[0], args.out[1]);
    }
  });
}

}  // namespace lithe
