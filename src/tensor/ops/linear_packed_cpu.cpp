#include <array>

#include "tensor/core/tensor.h"
#include "tensor/graph/graph.h"
#include "tensor/ops/blas.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/widened.h"

namespace lithe {
namespace {

// The sums over all rows of dy [rows, count * out], each layer's to its own db.
template <typename T>
void sum_layers(const KernelArgs& args, std::span<const TensorRef> dbs) {
  using A = acc_t<T>;
  const TensorRef& dy = args.in[0];
  const int64_t width = dy.shape.back();
  const int64_t out = dbs[0].numel();
  const T* from = dy.as<T>();
  std::array<T*, InferContext::kMaxOutputs> to{};
  for (size_t i = 0; i < dbs.size(); ++i) {
    to[i] = dbs[i].as<T>();
  }
  const auto add = [=](int64_t begin, int64_t end, A* sums) {
    for (int64_t r = begin; r < end; ++r) {
      const T* row = from + r * width;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        sums[c] += static_cast<A>(row[c]);
      }
    }
  };
  column_sum(dy.shape.product(0, dy.shape.rank() - 1), width, width,
             static_cast<A*>(args.workspace), add,
             [&](int64_t c, A total) { to[static_cast<size_t>(c / out)][c % out] = T(total); });
}

}  // namespace

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
  const int64_t out = dy.shape.back() / attrs.count;
  dispatch_floating(dy.dtype, args.op, [&]<typename T>() {
    if (attrs.weights != 0) {
      const TensorRef& x = args.in[1];
      const blas::Gemm g{.transpose_a = true,
                         .m = out,
                         .n = x.shape.back(),
                         .k = dy.shape.product(0, dy.shape.rank() - 1),
                         .lda = dy.shape.back(),
                         .ldb = x.shape.back(),
                         .ldc = x.shape.back()};
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
    }
    if (attrs.with_bias) {
      sum_layers<T>(args, args.out.subspan(static_cast<size_t>(attrs.wanted())));
    }
  });
}

}  // namespace lithe
