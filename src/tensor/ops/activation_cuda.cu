#include "tensor/core/tensor.h"
#include "tensor/ops/activation_math.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

template <Activation kKind, typename T>
struct Activate {
  __device__ T operator()(T x) const { return narrow<T>(activate<kKind>(widen<acc_t<T>>(x))); }
};

template <Activation kKind, typename T>
struct ActivateBackward {
  __device__ T operator()(T dy, T kept) const {
    using A = acc_t<T>;
    return narrow<T>(widen<A>(dy) * activation_slope<kKind>(widen<A>(kept)));
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
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    dispatch_activation(args.attr<ActivationAttrs>().kind, [&]<Activation kKind>() {
      map(args, args.out[0].numel(), ActivateBackward<kKind, T>{}, args.out[0].as<T>(),
          args.in[0].as<T>(), args.in[1].as<T>());
    });
  });
}

}  // namespace lithe
