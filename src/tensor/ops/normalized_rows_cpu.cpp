#include "tensor/core/tensor.h"
#include "tensor/ops/normalized_rows.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

// Calls row(x, y, r) for each row of `width` elements.
template <typename T, typename Row>
void for_rows(const KernelArgs& args, Row&& row) {
  const int64_t width = args.in[0].shape.back();
  const int64_t rows = width == 0 ? 0 : args.in[0].numel() / width;
  const T* x = args.in[0].as<T>();
  T* y = args.out[0].as<T>();
  parallel_for(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      row(x + r * width, y + r * width, r, width);
    }
  });
}

}  // namespace

void normalize_rows_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const A* mean = args.in[1].as<A>();
    const A* rstd = args.in[2].as<A>();
    for_rows<T>(args, [=](const T* x, T* y, int64_t r, int64_t width) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        y[i] = T((static_cast<A>(x[i]) - mean[r]) * rstd[r]);
      }
    });
  });
}

void spread_rows_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const A* rstd = args.in[1].as<A>();
    for_rows<T>(args, [=](const T* x, T* y, int64_t r, int64_t width) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        y[i] = T(static_cast<A>(x[i]) / rstd[r]);
      }
    });
  });
}

}  // namespace lithe
