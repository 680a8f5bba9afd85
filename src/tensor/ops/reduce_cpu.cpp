#include <algorithm>
#include <limits>
#include <type_traits>

#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/strided.h"

namespace lithe {
namespace {

// A reduction as a walk over results and a walk over the elements of one result. Where few results
// are made of many elements, these are cut into chunks of a fixed size, so that threads share them
// and the order of additions depends on the shape only.
struct Layout {
  Strided<1> kept;
  Strided<1> reduced;
  bool rows = false;    // the contiguous dimension is reduced; else it is kept
  int64_t results = 1;  // results; without the contiguous dimension where that is kept
  int64_t width = 1;    // elements of the contiguous dimension
  int64_t lines = 1;    // contiguous lines that one result is made of
  int64_t chunks = 1;   // parts of a line (rows), else of the lines
  int64_t chunk = 1;    // their size
  int64_t count = 1;    // elements of one result
};

constexpr int64_t kRowChunk = 32768;
constexpr int64_t kLinesOfChunk = 128;
constexpr int64_t kMostChunks = 64;
constexpr int64_t kColumnBlock = 1024;

Layout layout_of(const Shape& x, const ReduceAttrs& attrs) {
  Layout out;
  const auto strides = row_major_strides(x);
  for (int d = 0; d < x.rank(); ++d) {
    const bool is_reduced = ((attrs.axes >> d) & 1) != 0;
    (is_reduced ? out.reduced : out.kept).push(x[d], {strides[static_cast<size_t>(d)]});
    out.count *= is_reduced ? x[d] : 1;
  }
  out.rows = out.reduced.rank > 0 && out.reduced.inner_stride()[0] == 1;
  out.kept.finish();
  out.reduced.finish();
  if (out.rows) {
    out.results = out.kept.numel();
    out.width = out.reduced.inner();
    out.lines = out.reduced.outer().numel();
    out.chunk = kRowChunk;
    out.chunks = std::max<int64_t>((out.width + kRowChunk - 1) / kRowChunk, 1);
  } else {
    out.results = out.kept.outer().numel();
    out.width = out.kept.inner();
    out.lines = out.count;
    out.chunk = std::max(out.lines, int64_t{1});
    if (out.results < 16) {
      out.chunk = std::max(kLinesOfChunk, (out.lines + kMostChunks - 1) / kMostChunks);
    }
    out.chunks = std::max<int64_t>((out.lines + out.chunk - 1) / out.chunk, 1);
  }
  return out;
}

template <typename T>
inline constexpr bool kSumsInPlace = std::is_same_v<T, acc_t<T>>;

template <Reduction kKind, typename A>
constexpr A identity() {
  return kKind == Reduction::max ? -std::numeric_limits<A>::infinity() : A(0);
}

template <Reduction kKind, typename A>
inline A join(A a, A b) {
  if constexpr (kKind == Reduction::max) {
    return (b > a) | (b != b) ? b : a;  // NaN is the largest
  } else {
    return a + b;
  }
}

template <Reduction kKind, typename T>
acc_t<T> reduce_line(const T* x, int64_t n) {
  using A = acc_t<T>;
  if constexpr (kKind == Reduction::max) {
    A best = identity<kKind, A>();
    int has_nan = 0;
#pragma omp simd reduction(max : best) reduction(| : has_nan)
    for (int64_t i = 0; i < n; ++i) {
      const A v = static_cast<A>(x[i]);
      best = v > best ? v : best;
      has_nan |= static_cast<int>(v != v);
    }
    return has_nan != 0 ? std::numeric_limits<A>::quiet_NaN() : best;
  } else {
    // Blocks keep the running sums short: the error grows with their length.
    constexpr int64_t kBlock = 2048;
    A total = 0;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, n);
      A s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t i = begin; i < end; ++i) {
        s += static_cast<A>(x[i]);
      }
      total += s;
    }
    return total;
  }
}

template <Reduction kKind, typename A>
inline A finish(A total, int64_t count) {
  return kKind == Reduction::mean ? total / static_cast<A>(count) : total;
}

template <Reduction kKind, typename T>
void reduce_rows(const Layout& l, const T* x, T* y, acc_t<T>* partial) {
  using A = acc_t<T>;
  const Strided<1> outer = l.reduced.outer();
  parallel_for(l.results * l.chunks, l.lines * std::min(l.width, l.chunk),
               [&](int64_t begin, int64_t end) {
                 Cursor<1> result(l.kept, begin / l.chunks);
                 int64_t part = begin % l.chunks;
                 for (int64_t item = begin; item < end; ++item) {
                   const int64_t from = part * l.chunk;
                   const int64_t n = std::min(l.chunk, l.width - from);
                   A total = identity<kKind, A>();
                   Cursor<1> line(outer, 0);
                   for (int64_t i = 0; i < l.lines; ++i, line.advance()) {
                     const T* row = x + result.offset()[0] + line.offset()[0] + from;
                     total = join<kKind>(total, reduce_line<kKind>(row, n));
                   }
                   if (l.chunks == 1) {
                     y[item] = T(finish<kKind>(total, l.count));
                   } else {
                     partial[item] = total;
                   }
                   if (++part == l.chunks) {
                     part = 0;
                     result.advance();
                   }
                 }
               });
  if (l.chunks > 1) {
    for (int64_t r = 0; r < l.results; ++r) {
      A total = partial[r * l.chunks];
      for (int64_t c = 1; c < l.chunks; ++c) {
        total = join<kKind>(total, partial[r * l.chunks + c]);
      }
      y[r] = T(finish<kKind>(total, l.count));
    }
  }
}

// Four lines at a time: the totals are then loaded and stored once for four loads of x.
template <Reduction kKind, typename T>
void join_lines(const T* a, const T* b, const T* c, const T* d, acc_t<T>* total, int64_t n) {
  using A = acc_t<T>;
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    const A left = join<kKind>(static_cast<A>(a[k]), static_cast<A>(b[k]));
    const A right = join<kKind>(static_cast<A>(c[k]), static_cast<A>(d[k]));
    total[k] = join<kKind>(total[k], join<kKind>(left, right));
  }
}

template <Reduction kKind, typename T>
void join_line(const T* a, acc_t<T>* total, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    total[k] = join<kKind>(total[k], static_cast<acc_t<T>>(a[k]));
  }
}

template <Reduction kKind, typename T>
void reduce_columns(const Layout& l, const T* x, T* y, acc_t<T>* partial) {
  using A = acc_t<T>;
  const Strided<1> outer = l.kept.outer();
  const bool direct = kSumsInPlace<T> && l.chunks == 1;
  // Blocks of columns keep the totals in the first-level cache and give threads more to share.
  const int64_t blocks = (l.width + kColumnBlock - 1) / kColumnBlock;
  const int64_t cost = l.chunk * std::min(l.width, kColumnBlock);
  parallel_for(l.results * l.chunks * blocks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t column = item % blocks * kColumnBlock;
      const int64_t n = std::min(kColumnBlock, l.width - column);
      const int64_t part = item / blocks % l.chunks;
      const int64_t result = item / blocks / l.chunks;
      const int64_t to = (result * l.chunks + part) * l.width + column;
      A* total = partial + to;
      if constexpr (kSumsInPlace<T>) {
        total = direct ? y + to : total;
      }
      std::fill_n(total, n, identity<kKind, A>());
      const T* base = x + Cursor<1>(outer, result).offset()[0] + column;
      int64_t i = part * l.chunk;
      const int64_t last = std::min(i + l.chunk, l.lines);
      Cursor<1> line(l.reduced, i);
      for (; i + 4 <= last; i += 4) {
        const T* four[4];
        for (const T*& p : four) {
          p = base + line.offset()[0];
          line.advance();
        }
        join_lines<kKind>(four[0], four[1], four[2], four[3], total, n);
      }
      for (; i < last; ++i, line.advance()) {
        join_line<kKind>(base + line.offset()[0], total, n);
      }
    }
  });
  if (direct && kKind != Reduction::mean) {
    return;
  }
  parallel_for(l.results * l.width, l.chunks, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t r = i / l.width;
      const int64_t k0 = i % l.width;
      const int64_t n = std::min(l.width - k0, end - i);
      if constexpr (kSumsInPlace<T>) {
        if (direct) {
#pragma omp simd
          for (int64_t k = 0; k < n; ++k) {
            y[i + k] = finish<kKind>(y[i + k], l.count);
          }
          i += n;
          continue;
        }
      }
      A* total = partial + r * l.chunks * l.width + k0;
      for (int64_t c = 1; c < l.chunks; ++c) {
        join_line<kKind>(total + c * l.width, total, n);
      }
#pragma omp simd
      for (int64_t k = 0; k < n; ++k) {
        y[i + k] = T(finish<kKind>(total[k], l.count));
      }
      i += n;
    }
  });
}

template <Reduction kKind, typename T>
void run_reduce(const KernelArgs& args, const ReduceAttrs& attrs) {
  const Layout l = layout_of(args.in[0].shape, attrs);
  auto* partial = static_cast<acc_t<T>*>(args.workspace);
  const T* x = args.in[0].as<T>();
  T* y = args.out[0].as<T>();
  if (args.out[0].numel() == 0) {
    return;
  }
  if (l.rows) {
    reduce_rows<kKind>(l, x, y, partial);
  } else {
    reduce_columns<kKind>(l, x, y, partial);
  }
}

}  // namespace

int64_t reduce_cpu_workspace(const Shape& x, DType dtype, const ReduceAttrs& attrs) {
  const Layout l = layout_of(x, attrs);
  const int64_t accumulator = dtype == DType::f64 ? 8 : 4;
  if (l.rows) {
    return l.chunks == 1 ? 0 : l.results * l.chunks * accumulator;
  }
  const bool in_place = dtype == DType::f64 || dtype == DType::f32;
  return l.chunks == 1 && in_place ? 0 : l.results * l.chunks * l.width * accumulator;
}

void reduce_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<ReduceAttrs>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    switch (attrs.kind) {
      case Reduction::sum:
        return run_reduce<Reduction::sum, T>(args, attrs);
      case Reduction::mean:
        return run_reduce<Reduction::mean, T>(args, attrs);
      case Reduction::max:
        return run_reduce<Reduction::max, T>(args, attrs);
    }
  });
}

void reduce_max_grad_cpu(const KernelArgs& args) {
  const Layout l = layout_of(args.in[1].shape, args.attr<ReduceAttrs>());
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    const T* x = args.in[1].as<T>();
    T* dx = args.out[0].as<T>();
    parallel_for(args.in[0].numel(), l.count, [&](int64_t begin, int64_t end) {
      Cursor<1> result(l.kept, begin);
      for (int64_t r = begin; r < end; ++r, result.advance()) {
        const int64_t base = result.offset()[0];
        Cursor<1> element(l.reduced, 0);
        int64_t where = base + element.offset()[0];
        A best = static_cast<A>(x[where]);
        for (int64_t i = 0; i < l.count; ++i, element.advance()) {
          const int64_t at = base + element.offset()[0];
          const A v = static_cast<A>(x[at]);
          if (v > best || (v != v && best == best)) {
            best = v;
            where = at;
          }
        }
        const T gradient = dy[r];
        Cursor<1> again(l.reduced, 0);
        for (int64_t i = 0; i < l.count; ++i, again.advance()) {
          const int64_t at = base + again.offset()[0];
          dx[at] = at == where ? gradient : T(A(0));
        }
      }
    });
  });
}

void broadcast_to_cpu(const KernelArgs& args) {
  const Shape& to = args.out[0].shape;
  const auto strides = broadcast_strides(args.in[0].shape, to);
  Strided<1> walk;
  for (int d = 0; d < to.rank(); ++d) {
    walk.push(to[d], {strides[static_cast<size_t>(d)]});
  }
  walk.finish();
  const bool repeats = walk.inner_stride()[0] == 0;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    parallel_for(args.out[0].numel(), 1, [&](int64_t begin, int64_t end) {
      for_rows(walk, begin, end, [&](int64_t i, const Strided<1>::Offsets& at, int64_t n) {
        if (repeats) {
          std::fill_n(y + i, n, x[at[0]]);
        } else {
          std::copy_n(x + at[0], n, y + i);
        }
      });
    });
  });
}

}  // namespace lithe
