// What the CPU kernels of updates share: scalars, stores and the walk over a tensor.
#pragma once

#include <algorithm>
#include <array>

#include "tensor/ops/parallel.h"
#include "tensor/ops/update_dtypes.h"
#include "tensor/ops/update_measures.h"

namespace lithe {

inline double scalar_of(const TensorRef& t) {
  return t.dtype == DType::f64 ? *t.as<double>() : static_cast<double>(*t.as<float>());
}
// The factor on the gradient; 1 where none was given.
inline double gradient_scale(const TensorRef& t) { return t.data == nullptr ? 1 : scalar_of(t); }

inline void write_scalar(const TensorRef& to, double value) {
  if (to.dtype == DType::f64) {
    *to.as<double>() = value;
  } else {
    *to.as<float>() = static_cast<float>(value);
  }
}

// to = value. The 16-bit types are classes, whose copies keep GCC from vectorising a loop.
template <typename T, typename A>
inline void store(T& to, A value) {
  if constexpr (is_half_v<T>) {
    to.bits = T(value).bits;
  } else {
    to = T(value);
  }
}

// to = from, rounded.
inline void convert_into(const TensorRef& to, const TensorRef& from, std::string_view op) {
  dispatch_floating(to.dtype, op, [&]<typename T>() {
    dispatch_floating(from.dtype, op, [&]<typename S>() {
      T* out = to.as<T>();
      const S* in = from.as<S>();
      parallel_for(to.numel(), 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          store(out[i], static_cast<acc_t<S>>(in[i]));
        }
      });
    });
  });
}

// The sums over [0, n) of what sum(begin, end) gives of a chunk, joined in order.
template <typename Sum>
ChunkSums sum_chunks(const KernelArgs& args, int64_t n, int64_t cost, const Sum& sum) {
  auto* partial = static_cast<ChunkSums*>(args.workspace);
  const int64_t chunks = update_chunks(n);
  parallel_for(chunks, kUpdateChunk * cost, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      partial[chunk] = sum(chunk * kUpdateChunk, std::min(n, (chunk + 1) * kUpdateChunk));
    }
  });
  ChunkSums total;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    total.add(partial[chunk]);
  }
  return total;
}

// The last outputs of an update, where measures are asked for.
inline void write_measures(const KernelArgs& args, const UpdateMeasures& measures,
                           const ChunkSums& total) {
  size_t next = args.out.size();
  if (measures.change != ChangeMetric::none) {
    write_scalar(args.out[--next], change_of(measures, total, args.out[0].numel()));
  }
  if (measures.squares) {
    write_scalar(args.out[--next], total.squares);
  }
}

// Runs update.run<kMeasured>(begin, end) over the weight, `begin` a multiple of `grain`, and writes
// the measures.
template <typename Update>
void run_update(const KernelArgs& args, const UpdateMeasures& measures, int64_t cost,
                const Update& update, int64_t grain = 1) {
  const int64_t n = args.out[0].numel();
  if (!measures.any()) {
    parallel_for((n + grain - 1) / grain, cost * grain, [&](int64_t begin, int64_t end) {
      update.template run<false>(begin * grain, std::min(n, end * grain));
    });
    return;
  }
  write_measures(args, measures, sum_chunks(args, n, cost, [&](int64_t begin, int64_t end) {
                   return update.template run<true>(begin, end);
                 }));
}

// The gradient of a table [V, H] as rows (update.h).
template <typename G>
struct GradientRows {
  const G* gradient;
  const int32_t* rows;  // null: the gradient is whole
  int64_t hidden;

  GradientRows(const KernelArgs& args, const TensorRef& from, size_t map)
      : gradient(from.as<G>()),
        rows(map < args.in.size() ? args.in[map].as<int32_t>() : nullptr),
        hidden(rows == nullptr ? 0 : from.shape[1]) {}

  // Elements [begin, end) of the whole one.
  void expand(int64_t begin, int64_t end, G* to) const {
    for (int64_t i = begin; i < end;) {
      const int64_t row = i / hidden;
      const int64_t stop = std::min(end, (row + 1) * hidden);
      if (rows[row] < 0) {
        std::fill_n(to + (i - begin), stop - i, G{});
      } else {
        std::copy_n(gradient + rows[row] * hidden + (i - row * hidden), stop - i, to + (i - begin));
      }
      i = stop;
    }
  }
};

// An update over the whole gradient, a chunk of which is there at a time. The update reads element
// i of it at gradient[i - shift].
template <typename Update, typename G>
struct UpdateOverRows {
  Update update;
  GradientRows<G> rows;

  template <bool kMeasured>
  ChunkSums run(int64_t begin, int64_t end) const {
    std::array<G, kUpdateChunk> whole;
    Update part = update;
    part.gradient = whole.data();
    ChunkSums sums;
    for (int64_t i = begin; i < end; i += kUpdateChunk) {
      const int64_t stop = std::min(end, i + kUpdateChunk);
      rows.expand(i, stop, whole.data());
      part.shift = i;
      sums.add(part.template run<kMeasured>(i, stop));
    }
    return sums;
  }
};

// run_update with the gradient args.in[1], whole or as rows by the map that is input `map`.
template <typename G, typename Update>
void run_gradient_update(const KernelArgs& args, size_t map, const UpdateMeasures& measures,
                         int64_t cost, const Update& update, int64_t grain = 1) {
  const GradientRows<G> rows(args, args.in[1], map);
  if (rows.rows == nullptr) {
    run_update(args, measures, cost, update, grain);
  } else {
    run_update(args, measures, cost, UpdateOverRows<Update, G>{update, rows}, grain);
  }
}

}  // namespace lithe
