#include <algorithm>
#include <array>
#include <cstring>

#include "tensor/core/tensor.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

// Before any parallel work, since an exception must not leave a thread.
void check_ids(const KernelArgs& args, const int64_t* ids, int64_t n, int64_t vocabulary) {
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary) {
      throw ShapeError(args.op,
                       "id {} at position {} is outside the table's [0, {}); use the "
                       "tokenizer of this model",
                       ids[i], i, vocabulary);
    }
  }
}

}  // namespace

void embedding_cpu(const KernelArgs& args) {
  const int64_t* ids = args.in[1].as<int64_t>();
  const int64_t n = args.in[1].numel();
  const int64_t hidden = args.in[0].shape[1];
  check_ids(args, ids, n, args.in[0].shape[0]);
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const T* table = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    parallel_for(n, hidden, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(table + ids[i] * hidden, hidden, y + i * hidden);
      }
    });
  });
}

namespace {

constexpr int64_t kEnd = -1;

// Linking the ids of a row from the last to the first makes every row add them from the first on,
// and lets threads take rows of the table: any number of them gives the same sums.
struct IdLinks {
  int64_t* first;  // [V]: of each row of the table, kEnd: none
  int64_t* next;   // [n]
};

IdLinks link_ids(const KernelArgs& args, int64_t vocabulary) {
  const int64_t* ids = args.in[1].as<int64_t>();
  const int64_t n = args.in[1].numel();
  check_ids(args, ids, n, vocabulary);
  auto* first = static_cast<int64_t*>(args.workspace);
  int64_t* next = first + vocabulary;
  std::fill_n(first, vocabulary, kEnd);
  for (int64_t i = n - 1; i >= 0; --i) {
    next[i] = first[ids[i]];
    first[ids[i]] = i;
  }
  if (const int64_t padding = args.attr<EmbeddingAttrs>().padding; padding != kNoPadding) {
    first[padding] = kEnd;
  }
  return {first, next};
}

// The sum of row v of the table goes to row `place(v)` of the output; below 0: nowhere.
template <typename Place>
void sum_linked(const KernelArgs& args, const IdLinks& links, int64_t vocabulary,
                const Place& place) {
  const int64_t hidden = args.out[0].shape[1];
  const int64_t* const first = links.first;
  const int64_t* const next = links.next;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    constexpr int64_t kStrip = 256;
    const T* dy = args.in[0].as<T>();
    T* out = args.out[0].as<T>();
    parallel_for(vocabulary, hidden, [=](int64_t begin, int64_t end) {
      std::array<A, kStrip> sums;
      for (int64_t v = begin; v < end; ++v) {
        const int64_t at = place(v);
        if (at < 0) {
          continue;
        }
        T* row = out + at * hidden;
        if (first[v] == kEnd || next[first[v]] == kEnd) {
          if (first[v] == kEnd) {
            std::fill_n(row, hidden, T(A(0)));
          } else {
            std::copy_n(dy + first[v] * hidden, hidden, row);
          }
          continue;
        }
        for (int64_t h = 0; h < hidden; h += kStrip) {
          const int64_t count = std::min(kStrip, hidden - h);
          sums.fill(A(0));
          for (int64_t i = first[v]; i != kEnd; i = next[i]) {
            const T* from = dy + i * hidden + h;
#pragma omp simd
            for (int64_t j = 0; j < count; ++j) {
              sums[static_cast<size_t>(j)] += static_cast<A>(from[j]);
            }
          }
#pragma omp simd
          for (int64_t j = 0; j < count; ++j) {
            row[h + j] = T(sums[static_cast<size_t>(j)]);
          }
        }
      }
    });
  });
}

}  // namespace

void embedding_grad_cpu(const KernelArgs& args) {
  const int64_t vocabulary = args.out[0].shape[0];
  sum_linked(args, link_ids(args, vocabulary), vocabulary, [](int64_t v) { return v; });
}

void embedding_grad_rows_cpu(const KernelArgs& args) {
  const int64_t vocabulary = args.out[1].shape[0];
  const IdLinks links = link_ids(args, vocabulary);
  auto* rows = args.out[1].as<int32_t>();
  int32_t before = 0;
  for (int64_t v = 0; v < vocabulary; ++v) {
    rows[v] = links.first[v] == kEnd ? -1 : before;
    for (int64_t i = links.first[v]; i != kEnd; i = links.next[i]) {
      ++before;
    }
  }
  std::memset(args.out[0].data, 0, static_cast<size_t>(args.out[0].bytes()));
  sum_linked(args, links, vocabulary, [rows](int64_t v) { return int64_t{rows[v]}; });
}

}  // namespace lithe
