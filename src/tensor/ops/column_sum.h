// Sums over the rows of a matrix, the shape of every bias and scale gradient on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"
#include "tensor/graph/op.h"
#include "tensor/ops/parallel.h"

namespace lithe {

// How many ranges of rows are summed apart. It depends on the number of rows only, so the result
// does not depend on the number of threads.
inline int64_t row_chunks(int64_t rows) { return std::clamp<int64_t>(rows / 64, 1, 256); }

// add(row_begin, row_end, sums) adds a range of rows to sums [columns], which starts at zero;
// store(column, total) takes the results. `partial` holds row_chunks(rows) * columns elements;
// `cost` is the work of one row in elements.
template <typename A, typename Add, typename Store>
void column_sum(int64_t rows, int64_t columns, int64_t cost, A* partial, Add&& add, Store&& store) {
  const int64_t chunks = row_chunks(rows);
  parallel_for(chunks, cost * (rows / chunks + 1), [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      A* sums = partial + chunk * columns;
      std::fill_n(sums, columns, A(0));
      add(rows * chunk / chunks, rows * (chunk + 1) / chunks, sums);
    }
  });
  parallel_for(columns, chunks, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const A* from = partial + chunk * columns;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) {
        partial[c] += from[c];
      }
    }
    for (int64_t c = begin; c < end; ++c) {
      store(c, partial[c]);
    }
  });
}

// The sums over the rows of from [rows, columns], neighbouring columns to each of `to`, which are
// of one size; partial sums in the call's workspace.
inline void sum_rows(const KernelArgs& args, const TensorRef& from, int64_t rows,
                     std::span<const TensorRef> to) {
  const int64_t each = to[0].numel();
  const int64_t columns = static_cast<int64_t>(to.size()) * each;
  dispatch_floating(from.dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = from.as<T>();
    const auto add = [=](int64_t begin, int64_t end, A* sums) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = dy + r * columns;
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) {
          sums[c] += static_cast<A>(row[c]);
        }
      }
    };
    column_sum(rows, columns, columns, static_cast<A*>(args.workspace), add,
               [=](int64_t c, A total) {
                 to[static_cast<size_t>(c / each)].as<T>()[c % each] = T(total);
               });
  });
}
// to [columns] = sum over the rows of from [..., columns].
inline void sum_rows(const KernelArgs& args, const TensorRef& from, const TensorRef& to) {
  sum_rows(args, from, from.shape.product(0, from.shape.rank() - 1), {&to, 1});
}

}  // namespace lithe
