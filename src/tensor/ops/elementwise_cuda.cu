#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/cuda_walk.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/reduce.h"

namespace lithe {
namespace {

using namespace device;

template <Binary kKind, typename T>
struct Combine {
  __device__ T operator()(T left, T right) const {
    using A = acc_t<T>;
    const A a = widen<A>(left);
    const A b = widen<A>(right);
    if constexpr (kKind == Binary::add) {
      return narrow<T>(a + b);
    } else if constexpr (kKind == Binary::sub) {
      return narrow<T>(a - b);
    } else if constexpr (kKind == Binary::mul) {
      return narrow<T>(a * b);
    } else {
      return narrow<T>(a / b);
    }
  }
};

template <typename T>
struct Scale {
  acc_t<T> factor;
  __device__ T operator()(T x) const { return narrow<T>(widen<acc_t<T>>(x) * factor); }
};

template <typename To, typename From>
struct Cast {
  __device__ To operator()(From x) const {
    using A = std::conditional_t<std::is_same_v<From, double>, double, float>;
    return narrow<To>(widen<A>(x));
  }
};

template <typename T>
struct Same {
  __device__ T operator()(T x) const { return x; }
};

template <Binary kKind, typename T>
void run_binary(const KernelArgs& args) {
  const T* a = args.in[0].as<T>();
  const T* b = args.in[1].as<T>();
  T* y = args.out[0].as<T>();
  const Shape& out = args.out[0].shape;
  const auto strides_a = broadcast_strides(args.in[0].shape, out);
  const auto strides_b = broadcast_strides(args.in[1].shape, out);
  Strided<2> walk;
  for (int d = 0; d < out.rank(); ++d) {
    const auto i = static_cast<size_t>(d);
    walk.push(out[d], {strides_a[i], strides_b[i]});
  }
  walk.finish();
  const bool alike = walk.rank == 1 && walk.stride[0][0] == 1 && walk.stride[0][1] == 1;
  if (alike) {
    map(args, walk.numel(), Combine<kKind, T>{}, y, a, b);
  } else {
    map_walk(args, walk, Combine<kKind, T>{}, y, a, b);
  }
}

template <typename T>
__global__ void fill_kernel(int64_t n, T value, T* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) {
    y[i] = value;
  }
}

}  // namespace

void binary_cuda(const KernelArgs& args) {
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    switch (args.attr<BinaryAttrs>().kind) {
      case Binary::add:
        return run_binary<Binary::add, T>(args);
      case Binary::sub:
        return run_binary<Binary::sub, T>(args);
      case Binary::mul:
        return run_binary<Binary::mul, T>(args);
      case Binary::div:
        return run_binary<Binary::div, T>(args);
    }
  });
}

void scale_cuda(const KernelArgs& args) {
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const auto factor = static_cast<acc_t<T>>(args.attr<ScaleAttrs>().factor);
    map(args, args.out[0].numel(), Scale<T>{factor}, args.out[0].as<T>(), args.in[0].as<T>());
  });
}

void fill_cuda(const KernelArgs& args) {
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  dispatch_any(args.out[0].dtype, args.op, [&]<typename T>() {
    const T value = convert<T>(args.attr<FillAttrs>().value);
    fill_kernel<<<blocks_for(n, 256), 256, 0, stream_of(args)>>>(n, value, args.out[0].as<T>());
    check_launch(args.op);
  });
}

void cast_cuda(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename From>() {
    dispatch_floating(args.out[0].dtype, args.op, [&]<typename To>() {
      map(args, args.out[0].numel(), Cast<To, From>{}, args.out[0].as<To>(), args.in[0].as<From>());
    });
  });
}

void broadcast_to_cuda(const KernelArgs& args) {
  const Shape& to = args.out[0].shape;
  const auto strides = broadcast_strides(args.in[0].shape, to);
  Strided<1> walk;
  for (int d = 0; d < to.rank(); ++d) {
    walk.push(to[d], {strides[static_cast<size_t>(d)]});
  }
  walk.finish();
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    map_walk(args, walk, Same<T>{}, args.out[0].as<T>(), args.in[0].as<T>());
  });
}

}  // namespace lithe
