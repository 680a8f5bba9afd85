#include "tensor/core/tensor.h"
#include "tensor/graph/graph.h"
#include "tensor/ops/blas.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/widened.h"

namespace lithe {
void linear_packed_dx_cpu(const KernelArgs& args) {
  const int count = args.attr<LinearPackedDxAttrs>().count;
  const TensorRef& dy = args.in[0];
  const TensorRef& addend = args.in[1];
  const TensorRef& dx = args.out[0];
  const Shape& w = args.in[2].shape;
  const blas::Gemm g{.m = dy.shape.product(0, dy.shape.rank() - 1),
                     .n = w[1],
                     .k = w[0],
                     .lda = dy.shape.back(),
                     .ldb = w[1],
                     .ldc = w[1]};
  dispatch_floating(dy.dtype, args.op, [&]<typename T>() {
    Scratch scratch(args.workspace);
    const auto* d = widened<T>(dy, scratch);
    acc_t<T>* sum = nullptr;
    if constexpr (is_half_v<T>) {
      sum = scratch.take(dx.numel());
    } else {
      sum = dx.as<T>();
    }
    if (addend.data != nullptr && addend.data != sum) {
      convert_all(addend.as<T>(), dx.numel(), sum);
    }
    for (int i = 0; i < count; ++i) {
      Scratch one = scratch;  // the weights take turns
      const auto* weight = widened<T>(args.in[static_cast<size_t>(2 + i)], one);
      blas::gemm(g, 1, d + i * g.k, weight, i > 0 || addend.data != nullptr ? 1 : 0, sum);
    }
    if constexpr (is_half_v<T>) {
      convert_all(sum, dx.numel(), dx.as<T>());
    }
  });
}

void linear_packed_dw_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<LinearPackedDwAttrs>();
  const TensorRef& dy = args.in[0];
  const TensorRef& x = args.in[1];
  const int64_t out = dy.shape.back() / attrs.count;
  const blas::Gemm g{.transpose_a = true,
                     .m = out,
                     .n = x.shape.back(),
                     .k = dy.shape.product(0, dy.shape.rank() - 1),
                     .lda = dy.shape.back(),
                     .ldb = x.shape.back(),
                     .ldc = x.shape.back()};
  dispatch_floating(dy.dtype, args.op, [&]<typename T>() {
    Scratch scratch(args.workspace);
    const auto* d = widened<T>(dy, scratch);
    const auto* from = widened<T>(x, scratch);
    size_t next = 0;
    for (int i = 0; i < attrs.count; ++i) {
      if (!attrs.wants(i)) {
        continue;
      }
      const TensorRef& dw = args.out[next++];
      if constexpr (is_half_v<T>) {
        Scratch one = scratch;
        float* product = one.take(dw.numel());
        blas::gemm(g, 1, d + i * out, from, 0, product);
        convert_all(product, dw.numel(), dw.as<T>());
      } else {
        blas::gemm(g, 1, d + i * out, from, 0, dw.as<T>());
      }
    }
  });
}

}  // namespace lithe
