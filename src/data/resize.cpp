#include "data/resize.h"

#include <algorithm>
#include <cmath>

#include "tensor/core/checked.h"

namespace lithe {
namespace {

// Weights are fixed point: 8 bits of pixel and 2 bits of headroom leave 22 in an int32 sum.
constexpr int kWeightBits = 22;
constexpr int32_t kHalf = 1 << (kWeightBits - 1);

// For each output position the input range [first, first + taps) and its weights, which sum to one.
struct Filter {
  struct Range {
    int64_t first;
    int64_t taps;
  };
  std::vector<Range> ranges;
  std::vector<int32_t> weights;  // [positions, stride]
  int64_t stride = 0;

  const int32_t* at(int64_t position) const { return weights.data() + position * stride; }
};

double bilinear(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double bicubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) {
    return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
  }
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * kA : 0.0;
}

Filter make_filter(int64_t from, int64_t to, Interpolation interpolation) {
  const bool cubic = interpolation == Interpolation::kBicubic;
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double widening = std::max(scale, 1.0);
  const double support = (cubic ? 2.0 : 1.0) * widening;
  Filter out;
  out.stride = 2 * static_cast<int64_t>(std::ceil(support)) + 1;
  out.ranges.resize(static_cast<size_t>(to));
  out.weights.assign(static_cast<size_t>(checked_mul(to, out.stride)), 0);
  std::vector<double> exact(static_cast<size_t>(out.stride));
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, std::lround(center - support));
    const int64_t last = std::min(from, std::lround(center + support));
    double sum = 0.0;
    for (int64_t x = first; x < last; ++x) {
      const double at = (static_cast<double>(x) - center + 0.5) * (1.0 / widening);
      const double weight = cubic ? bicubic(at) : bilinear(at);
      exact[static_cast<size_t>(x - first)] = weight;
      sum += weight;
    }
    out.ranges[static_cast<size_t>(i)] = {first, last - first};
    for (int64_t x = 0; x < last - first; ++x) {
      const double weight = exact[static_cast<size_t>(x)] / sum * (1 << kWeightBits);
      out.weights[static_cast<size_t>(i * out.stride + x)] =
          static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
  }
  return out;
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

template <int C>
void resize_row(const uint8_t* in, const Filter& filter, uint8_t* out) {
  for (size_t i = 0; i < filter.ranges.size(); ++i) {
    const auto [first, taps] = filter.ranges[i];
    const int32_t* weights = filter.at(static_cast<int64_t>(i));
    const uint8_t* pixel = in + first * C;
    int32_t sums[C];
    std::fill_n(sums, C, kHalf);
    for (int64_t t = 0; t < taps; ++t) {
      for (int c = 0; c < C; ++c) {
        sums[c] += pixel[t * C + c] * weights[t];
      }
    }
    for (int c = 0; c < C; ++c) {
      out[i * C + static_cast<size_t>(c)] = to_byte(sums[c]);
    }
  }
}

void resize_row(const uint8_t* in, int64_t channels, const Filter& filter, uint8_t* out) {
  switch (channels) {
    case 1:
      return resize_row<1>(in, filter, out);
    case 2:
      return resize_row<2>(in, filter, out);
    case 3:
      return resize_row<3>(in, filter, out);
    case 4:
      return resize_row<4>(in, filter, out);
    default:
      throw UsageError("resize", "{} channels; at most 4 are supported", channels);
  }
}

}  // namespace

ImageView resize(const ImageView& in, int64_t height, int64_t width, Interpolation interpolation,
                 std::vector<uint8_t>& out) {
  if (height <= 0 || width <= 0 || in.shape.height <= 0 || in.shape.width <= 0) {
    throw UsageError("resize", "from {} to {} x {}; all sizes must be positive", in.shape, height,
                     width);
  }
  // An image of one pixel's height, its shorter side enlarged, would ask for any amount of memory.
  if (checked_mul(height, width) > kMaxImagePixels) {
    throw UsageError("resize",
                     "from {} to {} x {}, the limit is {} pixels; remove or crop the image",
                     in.shape, height, width, kMaxImagePixels);
  }
  const int64_t channels = in.shape.channels;
  const int64_t row_bytes = checked_mul(width, channels);
  out.resize(static_cast<size_t>(checked_mul(height, row_bytes)));
  const Filter across = make_filter(in.shape.width, width, interpolation);
  const Filter down = make_filter(in.shape.height, height, interpolation);

  // Rows are narrowed once each, into a ring that holds the taps of one output row.
  const int64_t ring_rows = std::min(down.stride, in.shape.height);
  std::vector<uint8_t> ring(static_cast<size_t>(checked_mul(ring_rows, row_bytes)));
  std::vector<int32_t> sums(static_cast<size_t>(row_bytes));
  int64_t narrowed = 0;
  for (int64_t y = 0; y < height; ++y) {
    const auto [first, taps] = down.ranges[static_cast<size_t>(y)];
    for (narrowed = std::max(narrowed, first); narrowed < first + taps; ++narrowed) {
      resize_row(in.row(narrowed), channels, across,
                 ring.data() + narrowed % ring_rows * row_bytes);
    }
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int64_t t = 0; t < taps; ++t) {
      const int32_t weight = down.at(y)[t];
      const uint8_t* row = ring.data() + (first + t) % ring_rows * row_bytes;
      for (int64_t x = 0; x < row_bytes; ++x) {
        sums[static_cast<size_t>(x)] += row[x] * weight;
      }
    }
    std::transform(sums.begin(), sums.end(), out.begin() + y * row_bytes, to_byte);
  }
  return {out.data(), {height, width, channels}, row_bytes};
}

}  // namespace lithe
