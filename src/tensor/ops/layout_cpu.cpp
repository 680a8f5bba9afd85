#include <algorithm>
#include <cstring>

#include "tensor/core/tensor.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/strided.h"

namespace lithe {
namespace {

// Moving data needs an element's size only.
template <typename F>
void dispatch_size(const TensorRef& x, F&& f) {
  switch (dtype_bits(x.dtype)) {
    case 8:
      return f.template operator()<uint8_t>();
    case 16:
      return f.template operator()<uint16_t>();
    case 32:
      return f.template operator()<uint32_t>();
    default:
      return f.template operator()<uint64_t>();
  }
}

// A tile of the transposition of x [rows by stride_x, columns contiguous] into y [columns by
// stride_y, rows contiguous]. Going through a block of fixed size lets both sides move whole cache
// lines.
template <typename E>
void transpose_tile(const E* x, int64_t stride_x, E* y, int64_t stride_y, int64_t rows,
                    int64_t columns) {
  constexpr int64_t kSide = 16;
  E block[kSide][kSide];
  for (int64_t c = 0; c < columns; c += kSide) {
    for (int64_t r = 0; r < rows; r += kSide) {
      if (r + kSide <= rows && c + kSide <= columns) {
        for (int64_t i = 0; i < kSide; ++i) {
          const E* from = x + (r + i) * stride_x + c;
          for (int64_t j = 0; j < kSide; ++j) {
            block[j][i] = from[j];
          }
        }
        for (int64_t j = 0; j < kSide; ++j) {
          std::copy_n(block[j], kSide, y + (c + j) * stride_y + r);
        }
      } else {
        for (int64_t j = c; j < std::min(c + kSide, columns); ++j) {
          for (int64_t i = r; i < std::min(r + kSide, rows); ++i) {
            y[j * stride_y + i] = x[i * stride_x + j];
          }
        }
      }
    }
  }
}

// The last dimension is contiguous in x as well: [B, T, N, D] <-> [B, N, T, D] and its like.
template <typename E>
void copy_rows(const Strided<1>& walk, const E* x, E* y) {
  parallel_for(walk.numel(), 1, [&](int64_t begin, int64_t end) {
    for_rows(walk, begin, end, [&](int64_t i, const Strided<1>::Offsets& at, int64_t n) {
      std::copy_n(x + at[0], n, y + i);
    });
  });
}

// Another dimension, `across`, is contiguous in x: tiles over that one and the last.
template <typename E>
void transpose_tiles(const Strided<1>& walk, int across, const E* x, E* y) {
  constexpr int64_t kTile = 64;
  const int last = walk.rank - 1;
  Strided<2> outer;  // operands: x, y
  std::array<int64_t, Shape::kMaxRank> stride_y{};
  int64_t step = 1;
  for (int d = last; d >= 0; --d) {
    stride_y[static_cast<size_t>(d)] = step;
    step *= walk.size[static_cast<size_t>(d)];
  }
  for (int d = 0; d < last; ++d) {
    if (d != across) {
      const auto i = static_cast<size_t>(d);
      outer.push(walk.size[i], {walk.stride[i][0], stride_y[i]});
    }
  }
  outer.finish();
  const int64_t columns = walk.size[static_cast<size_t>(across)];
  const int64_t rows = walk.inner();
  const int64_t tiles_c = (columns + kTile - 1) / kTile;
  const int64_t tiles_r = (rows + kTile - 1) / kTile;
  const int64_t items = outer.numel() * tiles_c * tiles_r;
  parallel_for(items, std::min(rows, kTile) * std::min(columns, kTile),
               [&](int64_t begin, int64_t end) {
                 for (int64_t item = begin; item < end; ++item) {
                   const int64_t r = item % tiles_r * kTile;
                   const int64_t c = item / tiles_r % tiles_c * kTile;
                   const auto at = Cursor<2>(outer, item / tiles_r / tiles_c).offset();
                   const int64_t stride_x = walk.inner_stride()[0];
                   const int64_t to = stride_y[static_cast<size_t>(across)];
                   transpose_tile(x + at[0] + r * stride_x + c, stride_x, y + at[1] + c * to + r,
                                  to, std::min(kTile, rows - r), std::min(kTile, columns - c));
                 }
               });
}

// What lies before, on and behind an axis: x is [outer, axis, inner].
struct AxisSplit {
  int64_t outer = 1;
  int64_t inner = 1;  // in bytes
};

AxisSplit split_at(const TensorRef& x, int axis) {
  return {x.shape.product(0, axis),
          x.shape.product(axis + 1, x.shape.rank()) * (dtype_bits(x.dtype) / 8)};
}

// Rows of `bytes` from x, `stride_x` apart, to y, `stride_y` apart.
void copy_blocks(const std::byte* x, int64_t stride_x, std::byte* y, int64_t stride_y,
                 int64_t bytes, int64_t rows) {
  if (bytes == 0) {
    return;
  }
  if (bytes == stride_x && bytes == stride_y) {
    parallel_for(rows * bytes, 1, [=](int64_t begin, int64_t end) {
      std::memcpy(y + begin, x + begin, static_cast<size_t>(end - begin));
    });
    return;
  }
  parallel_for(rows, bytes / 4, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(y + r * stride_y, x + r * stride_x, static_cast<size_t>(bytes));
    }
  });
}

}  // namespace

void reshape_cpu(const KernelArgs& /*args*/) {}

void transpose_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<TransposeAttrs>();
  const TensorRef& x = args.in[0];
  const TensorRef& y = args.out[0];
  if (y.numel() == 0) {
    return;
  }
  const auto strides = row_major_strides(x.shape);
  Strided<1> walk;
  for (int d = 0; d < attrs.rank; ++d) {
    const auto from = static_cast<size_t>(attrs.order[static_cast<size_t>(d)]);
    walk.push(y.shape[d], {strides[from]});
  }
  walk.finish();
  int across = walk.rank - 1;
  while (walk.stride[static_cast<size_t>(across)][0] != 1) {
    --across;  // every walk over all of x has a dimension of stride 1
  }
  dispatch_size(x, [&]<typename E>() {
    if (across == walk.rank - 1) {
      copy_rows(walk, x.as<E>(), y.as<E>());
    } else {
      transpose_tiles(walk, across, x.as<E>(), y.as<E>());
    }
  });
}

void slice_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<SliceAttrs>();
  const TensorRef& x = args.in[0];
  const AxisSplit s = split_at(x, attrs.axis);
  const int64_t bytes = (attrs.end - attrs.begin) * s.inner;
  copy_blocks(x.as<std::byte>() + attrs.begin * s.inner, x.shape[attrs.axis] * s.inner,
              args.out[0].as<std::byte>(), bytes, bytes, s.outer);
}

void slice_grad_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<SliceAttrs>();
  const AxisSplit s = split_at(args.out[0], attrs.axis);
  const std::byte* dy = args.in[0].as<std::byte>();
  std::byte* dx = args.out[0].as<std::byte>();
  const int64_t full = attrs.full * s.inner;
  const int64_t begin = attrs.begin * s.inner;
  const int64_t end = attrs.end * s.inner;
  parallel_for(s.outer, full / 4, [=](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      std::byte* row = dx + r * full;
      std::fill_n(row, begin, std::byte{0});
      std::copy_n(dy + r * (end - begin), end - begin, row + begin);
      std::fill_n(row + end, full - end, std::byte{0});
    }
  });
}

void concat_cpu(const KernelArgs& args) {
  const int axis = args.attr<ConcatAttrs>().axis;
  const TensorRef& y = args.out[0];
  const int64_t stride = y.shape[axis] * split_at(y, axis).inner;
  int64_t at = 0;
  for (const TensorRef& x : args.in) {
    const AxisSplit s = split_at(x, axis);
    const int64_t bytes = x.shape[axis] * s.inner;
    copy_blocks(x.as<std::byte>(), bytes, y.as<std::byte>() + at, stride, bytes, s.outer);
    at += bytes;
  }
}

}  // namespace lithe
