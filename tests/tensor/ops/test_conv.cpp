#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "tensor/ops/conv.h"
#include "tensor/ops/conv_geometry.h"

namespace lithe {
namespace {

Tensor random_tensor(const Shape& shape, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  Tensor out(DType::f64, shape);
  for (double& x : out.as<double>()) {
    x = normal(generator);
  }
  return out;
}

// A buffer between guards, filled with NaN.
class Guarded {
 public:
  explicit Guarded(int64_t bytes)
      : bytes_(static_cast<size_t>(bytes)), data_((bytes_ + 2 * kGuard) / 8 + 1, ~uint64_t{0}) {}
  void* data() { return reinterpret_cast<std::byte*>(data_.data()) + kGuard; }
  bool intact() const {
    const auto* begin = reinterpret_cast<const uint8_t*>(data_.data());
    for (size_t i = 0; i < kGuard; ++i) {
      if (begin[i] != 0xff || begin[kGuard + bytes_ + i] != 0xff) {
        return false;
      }
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;
  size_t bytes_;
  std::vector<uint64_t> data_;
};

// Runs one op's CPU kernel in poisoned memory of exactly the planned sizes.
std::vector<Tensor> call(const OpDef& op, const std::vector<Tensor>& inputs, const Attrs& attrs) {
  const SlotTable slots;
  Graph g(slots);
  std::vector<ValueId> in;
  for (size_t i = 0; i < inputs.size(); ++i) {
    in.push_back(g.input(fmt::format("in{}", i), inputs[i].dtype(), inputs[i].shape()));
  }
  const NodeId n = g.emit_node(op, in, attrs);
  std::vector<TensorRef> in_refs, out_refs;
  std::vector<Tensor> copies;
  std::vector<Guarded> memory;
  for (const Tensor& t : inputs) {
    copies.push_back(t.clone());
    in_refs.push_back({copies.back().data(), t.dtype(), t.shape()});
  }
  memory.reserve(8);
  for (ValueId v : g.outputs(n)) {
    memory.emplace_back(g.bytes(v));
    out_refs.push_back({memory.back().data(), g.dtype(v), g.shape(v)});
  }
  KernelArgs args;
  args.op = op.name;
  args.in = in_refs;
  args.out = out_refs;
  const Attrs& stored = g.node(n).attrs;
  args.attrs = &stored;
  args.workspace_bytes = op.workspace == nullptr ? 0 : op.workspace(g, n, DeviceKind::cpu);
  memory.emplace_back(args.workspace_bytes);
  args.workspace = memory.back().data();
  op.cpu(args);
  for (const Guarded& m : memory) {
    CHECK(m.intact());
  }
  std::vector<Tensor> out;
  for (const TensorRef& r : out_refs) {
    Tensor t(r.dtype, r.shape);
    std::memcpy(t.data(), r.data, static_cast<size_t>(t.bytes()));
    out.push_back(t);
  }
  return out;
}

// Norm of the difference as a share of the wanted norm.
double error(const Tensor& got, const Tensor& wanted) {
  REQUIRE(got.shape() == wanted.shape());
  const Tensor wide = got.to(DType::f64);
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < wide.as<double>().size(); ++i) {
    const double w = wanted.as<double>()[i];
    difference += std::pow(wide.as<double>()[i] - w, 2);
    size += w * w;
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

struct ConvCase {
  Shape x;
  Shape weight;
  ConvAttrs attrs;
};

// y, dx and dw as the sums they are defined by.
struct Direct {
  Tensor y, dx, dw;
};
Direct direct(const ConvCase& c, const Tensor& x, const Tensor& w, const Tensor& bias,
              const Tensor& dy) {
  const ConvGeometry g = conv_geometry(c.x, c.weight, c.attrs);
  Direct out{Tensor(DType::f64, dy.shape()), Tensor(DType::f64, c.x), Tensor(DType::f64, c.weight)};
  for (int64_t b = 0; b < g.batch; ++b) {
    for (int64_t p = 0; p < g.image_positions(); ++p) {
      for (int64_t o = 0; o < g.out_channels; ++o) {
        const auto to = static_cast<size_t>((b * g.image_positions() + p) * g.out_channels + o);
        double sum = bias.as<double>()[static_cast<size_t>(o)];
        for (int64_t t = 0; t < g.taps(); ++t) {
          const int64_t row = p / g.out_width * c.attrs.stride_h - c.attrs.pad_h + t / g.kernel_w;
          const int64_t column =
              p % g.out_width * c.attrs.stride_w - c.attrs.pad_w + t % g.kernel_w;
          if (row < 0 || row >= g.height || column < 0 || column >= g.width) {
            continue;
          }
          for (int64_t i = 0; i < g.group_in(); ++i) {
            const int64_t channel = o / g.group_out() * g.group_in() + i;
            const auto from = static_cast<size_t>(
                ((b * g.height + row) * g.width + column) * g.channels + channel);
            const auto tap = static_cast<size_t>((o * g.taps() + t) * g.group_in() + i);
            sum += x.as<double>()[from] * w.as<double>()[tap];
            out.dx.as<double>()[from] += dy.as<double>()[to] * w.as<double>()[tap];
            out.dw.as<double>()[tap] += dy.as<double>()[to] * x.as<double>()[from];
          }
        }
        out.y.as<double>()[to] = sum;
      }
    }
  }
  return out;
}

void check_conv(const ConvCase& c, bool halves) {
  CAPTURE(to_string(c.x));
  CAPTURE(to_string(c.weight));
  const ConvGeometry g = conv_geometry(c.x, c.weight, c.attrs);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    if (dtype_bits(dtype) == 16 && !halves) {
      continue;
    }
    CAPTURE(dtype_name(dtype));
    // 16-bit results are rounded once from fp32 sums: half a unit in the last of 8 or 11 bits.
    const double tolerance = dtype == DType::f64    ? 1e-14
                             : dtype == DType::f32  ? 1e-6
                             : dtype == DType::bf16 ? std::ldexp(1, -8)
                                                    : std::ldexp(1, -11);
    const Tensor x = random_tensor(c.x, 1).to(dtype);
    const Tensor w = random_tensor(c.weight, 2).to(dtype);
    const Tensor bias = random_tensor({g.out_channels}, 3).to(dtype);
    const Tensor dy =
        random_tensor({g.batch, g.out_height, g.out_width, g.out_channels}, 4).to(dtype);
    const Direct wanted =
        direct(c, x.to(DType::f64), w.to(DType::f64), bias.to(DType::f64), dy.to(DType::f64));
    const ConvDxAttrs dx{c.attrs, g.height, g.width};
    const ConvDwAttrs dw{c.attrs, g.kernel_h, g.kernel_w};
    CHECK(error(call(conv2d_op, {x, w, bias}, c.attrs)[0], wanted.y) <= tolerance);
    CHECK(error(call(conv2d_dx_op, {dy, w}, dx)[0], wanted.dx) <= tolerance);
    CHECK(error(call(conv2d_dw_op, {x, dy}, dw)[0], wanted.dw) <= tolerance);
    // Without bias: the same less the bias.
    const Tensor none(dtype, {g.out_channels});
    CHECK(error(call(conv2d_op, {x, w}, c.attrs)[0],
                call(conv2d_op, {x, w, none}, c.attrs)[0].to(DType::f64)) == 0);
  }
}

ConvAttrs attrs(int stride, int pad, int groups = 1) { return {stride, stride, pad, pad, groups}; }

}  // namespace

TEST_CASE("conv2d, dx and dw are the sums that define them") {
  const std::vector<ConvCase> cases = {
      {{2, 7, 5, 4}, {6, 3, 3, 2}, attrs(2, 1, 2)},
      {{1, 6, 9, 3}, {5, 3, 2, 3}, attrs(1, 0)},
      {{2, 5, 4, 3}, {3, 3, 3, 1}, attrs(1, 1, 3)},     // depthwise
      {{2, 9, 8, 70}, {70, 3, 5, 1}, attrs(2, 2, 70)},  // depthwise, more than a block
      {{2, 5, 4, 3}, {6, 3, 3, 1}, attrs(1, 1, 3)},     // two filters a channel
      {{2, 3, 4, 5}, {3, 1, 1, 5}, attrs(1, 0)},        // pointwise
      {{2, 3, 4, 6}, {4, 1, 1, 3}, attrs(1, 0, 2)},     // pointwise in groups
      {{2, 5, 6, 4}, {3, 1, 1, 4}, attrs(2, 0)},        // pointwise with a stride
      {{2, 8, 12, 3}, {5, 4, 4, 3}, attrs(4, 0)},       // patches
      {{3, 9, 11, 2}, {5, 4, 4, 2}, attrs(4, 0)},       // patches, a rest at the border
      {{1, 7, 7, 2}, {3, 2, 2, 2}, attrs(3, 0)},        // pixels that no window sees
      {{1, 1, 1, 1}, {1, 1, 1, 1}, attrs(1, 0)},
      {{1, 1, 1, 2}, {3, 3, 3, 2}, attrs(1, 1)},  // a kernel larger than the image
      {{2, 2, 3, 1}, {2, 3, 3, 1}, attrs(1, 2)},  // windows that see only padding
      {{0, 5, 5, 2}, {3, 3, 3, 2}, attrs(1, 1)},
      {{2, 5, 5, 0}, {3, 3, 3, 0}, attrs(1, 1)},
      {{2, 5, 5, 2}, {0, 3, 3, 2}, attrs(1, 1)},
      {{2, 8, 5, 2}, {3, 3, 2, 2}, {2, 1, 0, 1, 1}},  // unequal strides and padding
  };
  for (const ConvCase& c : cases) {
    check_conv(c, true);
  }
}

TEST_CASE("conv2d in several chunks: the workspace is bounded and the result the same") {
  const ConvCase large{{3, 61, 67, 16}, {3, 3, 3, 16}, attrs(1, 1)};
  const ConvGeometry g = conv_geometry(large.x, large.weight, large.attrs);
  for (DType dtype : {DType::f64, DType::bf16}) {
    for (ConvPass pass : {ConvPass::forward, ConvPass::dx, ConvPass::dw}) {
      const ConvWorkspace work = conv_workspace(g, pass, dtype);
      CHECK(work.bytes <= 4 * kConvChunkBytes);
      if (dtype == DType::f64) {
        CHECK(work.rows < g.positions());
        CHECK(work.rows % g.image_positions() != 0);
      }
    }
  }
  check_conv(large, false);
  // 16-bit dx sums a few images at a time.
  const ConvCase images{{3, 200, 250, 32}, {1, 2, 2, 32}, attrs(2, 0)};
  const ConvGeometry many = conv_geometry(images.x, images.weight, images.attrs);
  CHECK(conv_workspace(many, ConvPass::dx, DType::bf16).images == 1);
  check_conv(images, true);
}

TEST_CASE("depthwise gradients do not depend on the number of threads") {
  const ConvAttrs a = attrs(1, 1, 33);
  const Tensor x = random_tensor({3, 20, 21, 33}, 1).to(DType::f32);
  const Tensor dy = random_tensor({3, 20, 21, 33}, 2).to(DType::f32);
  const int threads = omp_get_max_threads();
  std::vector<Tensor> results;
  for (int count : {1, 3}) {
    omp_set_num_threads(count);
    results.push_back(call(conv2d_dw_op, {x, dy}, ConvDwAttrs{a, 3, 3})[0]);
  }
  omp_set_num_threads(threads);
  CHECK(std::memcmp(results[0].data(), results[1].data(),
                    static_cast<size_t>(results[0].bytes())) == 0);
}

TEST_CASE("max pooling: the first of equals wins, NaN is seen, padding never wins") {
  const PoolAttrs a{2, 2, 2, 2, 0, 0};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float low = -std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::from(Shape{1, 2, 6, 1},
                                std::vector<float>{5, 5, 1, nan, low, low, 5, 5, 9, 2, low, low});
  const auto out = call(max_pool2d_op, {x}, a);
  CHECK(out[0].as<float>()[0] == 5);
  CHECK(out[1].as<int32_t>()[0] == 0);
  CHECK(std::isnan(out[0].as<float>()[1]));
  CHECK(out[1].as<int32_t>()[1] == 3);
  CHECK(out[0].as<float>()[2] == low);
  CHECK(out[1].as<int32_t>()[2] == 4);
  const Tensor negative = Tensor::from(Shape{1, 1, 1, 1}, std::vector<float>{-3});
  CHECK(call(max_pool2d_op, {negative}, PoolAttrs{3, 3, 1, 1, 1, 1})[0].as<float>()[0] == -3);
  const Tensor averaged = call(avg_pool2d_op, {negative}, PoolAttrs{3, 3, 1, 1, 1, 1})[0];
  CHECK(averaged.as<float>()[0] == -3);
}

TEST_CASE("pixel shuffle undoes unshuffle; upsampling repeats pixels") {
  for (int f : {2, 3}) {
    for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
      const Tensor x = random_tensor({2, 2 * f, 3 * f, 5}, 1).to(dtype);
      const Tensor small = call(pixel_unshuffle_op, {x}, ResampleAttrs{f})[0];
      const Tensor back = call(pixel_shuffle_op, {small}, ResampleAttrs{f})[0];
      CHECK(std::memcmp(x.data(), back.data(), static_cast<size_t>(x.bytes())) == 0);
      // Channel 2 f² + 1 f + 0 of the first pixel is channel 2 of pixel (1, 0).
      CHECK(small.to(DType::f64).as<double>()[static_cast<size_t>(2 * f * f + f)] ==
            x.to(DType::f64).as<double>()[static_cast<size_t>(3 * f * 5 + 2)]);
    }
  }
  const Tensor x = Tensor::from(Shape{1, 1, 2, 1}, std::vector<float>{1, 2});
  const Tensor up = call(upsample_nearest_op, {x}, ResampleAttrs{2})[0];
  const auto span = up.as<float>();
  CHECK(std::vector<float>(span.begin(), span.end()) == std::vector<float>{1, 1, 2, 2, 1, 1, 2, 2});
  const Tensor sums = call(upsample_nearest_grad_op, {up}, ResampleAttrs{2})[0];
  CHECK(sums.as<float>()[0] == 4);
  CHECK(sums.as<float>()[1] == 8);
}

TEST_CASE("convolutions and pools refuse what does not fit") {
  const SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {2, 6, 5, 4});
  const ValueId flat = g.input("flat", DType::f32, {2, 30, 4});
  const ValueId w = g.input("w", DType::f32, {6, 3, 3, 2});
  const ValueId w64 = g.input("w64", DType::f64, {6, 3, 3, 2});
  const ValueId large = g.input("large", DType::f32, {6, 7, 3, 4});
  const ValueId bias = g.input("bias", DType::f32, {5});
  CHECK_NOTHROW(conv2d(g, x, w, kNoValue, attrs(1, 0, 2)));
  CHECK_THROWS_AS(conv2d(g, x, w, kNoValue, attrs(1, 0)), ShapeError);
  CHECK_THROWS_AS(conv2d(g, x, w64, kNoValue, attrs(1, 0, 2)), ShapeError);
  CHECK_THROWS_AS(conv2d(g, flat, w, kNoValue, attrs(1, 0, 2)), ShapeError);
  CHECK_THROWS_AS(conv2d(g, x, w, bias, attrs(1, 0, 2)), ShapeError);
  CHECK_THROWS_AS(conv2d(g, x, w, kNoValue, attrs(0, 0, 2)), ShapeError);
  CHECK_THROWS_AS(conv2d(g, x, w, kNoValue, attrs(1, -1, 2)), ShapeError);
  CHECK_THROWS_AS(conv2d(g, x, large, kNoValue, attrs(1, 0)), ShapeError);
  CHECK_THROWS_AS(max_pool2d(g, x, {2, 2, 2, 2, 2, 2}), ShapeError);
  CHECK_THROWS_AS(avg_pool2d(g, x, {7, 7, 1, 1, 0, 0}), ShapeError);
  CHECK_THROWS_AS(avg_pool2d(g, x, {2, 2, 0, 1, 0, 0}), ShapeError);
  CHECK_THROWS_AS(pixel_unshuffle(g, x, 2), ShapeError);
  CHECK_THROWS_AS(pixel_shuffle(g, x, 3), ShapeError);
  CHECK_THROWS_AS(upsample_nearest(g, x, 0), ShapeError);
}

}  // namespace lithe
