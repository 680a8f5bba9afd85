#include "tensor/ops/conv.h"

#include "tensor/ops/conv_geometry.h"
#include "tensor/ops/matmul.h"

namespace lithe {
namespace {

void expect_images(const InferContext& c, int i, std::string_view what) {
  c.expect_floating(i);
  if (c.shape(i).rank() != 4) {
    c.fail("{} has shape {}; [batch, height, width, channels] is wanted", what, c.shape(i));
  }
}

void expect_attrs(const InferContext& c, const ConvAttrs& a) {
  if (a.stride_h < 1 || a.stride_w < 1 || a.pad_h < 0 || a.pad_w < 0 || a.groups < 1) {
    c.fail("strides {} x {} and groups {} must be at least 1, padding {} x {} at least 0",
           a.stride_h, a.stride_w, a.groups, a.pad_h, a.pad_w);
  }
}

void expect_groups(const InferContext& c, int64_t channels, int64_t filters, int groups) {
  if (channels % groups != 0 || filters % groups != 0) {
    c.fail("{} channels and {} filters cannot be cut into {} groups", channels, filters, groups);
  }
}

void expect_window(const InferContext& c, std::string_view axis, int64_t size, int64_t pad,
                   int64_t kernel) {
  if (kernel < 1 || size + 2 * pad < kernel) {
    c.fail("the kernel's {} {} does not fit into {} + 2 x {} pixels; enlarge image or padding",
           axis, kernel, size, pad);
  }
}

// The output of x through the geometry, after all checks.
Shape output_shape(const ConvGeometry& g) {
  return {g.batch, g.out_height, g.out_width, g.out_channels};
}

void infer_conv2d(InferContext& c) {
  c.expect_inputs(2, 3);
  const auto attrs = c.attr<ConvAttrs>();
  expect_images(c, 0, "x");
  expect_attrs(c, attrs);
  c.expect_same_dtype(0, 1);
  const Shape& x = c.shape(0);
  const Shape& w = c.shape(1);
  if (w.rank() != 4 || w[3] * attrs.groups != x[3]) {
    c.fail("weight {} does not fit x {}; [filters, kernel height, kernel width, {} / {}] is wanted",
           w, x, x[3], attrs.groups);
  }
  expect_groups(c, x[3], w[0], attrs.groups);
  expect_window(c, "height", x[1], attrs.pad_h, w[1]);
  expect_window(c, "width", x[2], attrs.pad_w, w[2]);
  if (c.has(2)) {
    c.expect_same_dtype(0, 2);
    c.expect_shape(2, Shape{w[0]}, "bias");
  }
  c.output(c.dtype(0), output_shape(conv_geometry(x, w, attrs)));
}

void infer_conv2d_dx(InferContext& c) {
  c.expect_inputs(2);
  const auto attrs = c.attr<ConvDxAttrs>();
  expect_images(c, 0, "dy");
  expect_attrs(c, attrs.conv);
  c.expect_same_dtype(0, 1);
  const Shape& w = c.shape(1);
  if (w.rank() != 4) {
    c.fail("weight has shape {}; [filters, height, width, channels / groups] is wanted", w);
  }
  expect_groups(c, w[3] * attrs.conv.groups, w[0], attrs.conv.groups);
  expect_window(c, "height", attrs.height, attrs.conv.pad_h, w[1]);
  expect_window(c, "width", attrs.width, attrs.conv.pad_w, w[2]);
  const ConvGeometry g = conv_geometry_dx(c.shape(0), w, attrs);
  c.expect_shape(0, output_shape(g), "dy");
  c.output(c.dtype(0), Shape{g.batch, g.height, g.width, g.channels});
}

void infer_conv2d_dw(InferContext& c) {
  c.expect_inputs(2);
  const auto attrs = c.attr<ConvDwAttrs>();
  expect_images(c, 0, "x");
  expect_images(c, 1, "dy");
  expect_attrs(c, attrs.conv);
  c.expect_same_dtype(0, 1);
  expect_groups(c, c.shape(0)[3], c.shape(1)[3], attrs.conv.groups);
  expect_window(c, "height", c.shape(0)[1], attrs.conv.pad_h, attrs.kernel_h);
  expect_window(c, "width", c.shape(0)[2], attrs.conv.pad_w, attrs.kernel_w);
  const ConvGeometry g = conv_geometry_dw(c.shape(0), c.shape(1), attrs);
  c.expect_shape(1, output_shape(g), "dy");
  c.output(c.dtype(0), Shape{g.out_channels, g.kernel_h, g.kernel_w, g.group_in()});
}

void grad_conv2d(GradContext& c) {
  const auto attrs = c.attr<ConvAttrs>();
  if (c.wants(0)) {
    c.set(0, c.graph.emit(conv2d_dx_op, {c.dout(), c.in(1)},
                          ConvDxAttrs{attrs, c.shape(0)[1], c.shape(0)[2]}));
  }
  if (c.wants(1)) {
    c.set(1, c.graph.emit(conv2d_dw_op, {c.in(0), c.dout()},
                          ConvDwAttrs{attrs, c.shape(1)[1], c.shape(1)[2]}));
  }
  if (c.wants(2)) {
    c.set(2, c.graph.emit(bias_grad_op, {c.dout()}));
  }
}

ConvGeometry geometry(const Graph& g, NodeId n, ConvPass pass) {
  const Shape& a = g.shape(g.in(n, 0));
  const Shape& b = g.shape(g.in(n, 1));
  switch (pass) {
    case ConvPass::forward:
      return conv_geometry(a, b, g.attr<ConvAttrs>(n));
    case ConvPass::dx:
      return conv_geometry_dx(a, b, g.attr<ConvDxAttrs>(n));
    default:
      return conv_geometry_dw(a, b, g.attr<ConvDwAttrs>(n));
  }
}

template <ConvPass kPass>
double flops(const Graph& g, NodeId n) {
  const ConvGeometry geo = geometry(g, n, kPass);
  const double products = static_cast<double>(geo.positions()) *
                          static_cast<double>(geo.out_channels) * static_cast<double>(geo.patch());
  const bool has_bias = kPass == ConvPass::forward && g.inputs(n).size() > 2 && g.in(n, 2) >= 0;
  return 2 * products + (has_bias ? static_cast<double>(geo.positions() * geo.out_channels) : 0);
}

template <ConvPass kPass>
int64_t workspace(const Graph& g, NodeId n, DeviceKind device) {
  const ConvGeometry geo = geometry(g, n, kPass);
  const DType dtype = g.dtype(g.in(n, 0));
  return device == DeviceKind::cuda ? conv_workspace_cuda(geo, kPass, dtype).bytes
                                    : conv_workspace(geo, kPass, dtype).bytes;
}

}  // namespace

ConvGeometry conv_geometry(const Shape& x, const Shape& weight, const ConvAttrs& attrs) {
  ConvGeometry g;
  g.attrs = attrs;
  g.batch = x[0];
  g.height = x[1];
  g.width = x[2];
  g.channels = x[3];
  g.kernel_h = weight[1];
  g.kernel_w = weight[2];
  g.out_channels = weight[0];
  g.out_height = (g.height + 2 * attrs.pad_h - g.kernel_h) / attrs.stride_h + 1;
  g.out_width = (g.width + 2 * attrs.pad_w - g.kernel_w) / attrs.stride_w + 1;
  return g;
}

ConvGeometry conv_geometry_dx(const Shape& dy, const Shape& weight, const ConvDxAttrs& attrs) {
  return conv_geometry({dy[0], attrs.height, attrs.width, weight[3] * attrs.conv.groups}, weight,
                       attrs.conv);
}

ConvGeometry conv_geometry_dw(const Shape& x, const Shape& dy, const ConvDwAttrs& attrs) {
  return conv_geometry(x, {dy[3], attrs.kernel_h, attrs.kernel_w, x[3] / attrs.conv.groups},
                       attrs.conv);
}

ConvWorkspaceCuda conv_workspace_cuda(const ConvGeometry& g, ConvPass pass, DType dtype) {
  ConvWorkspaceCuda work;
  const int64_t element = dtype_bits(dtype) / 8;
  const int64_t x = checked_mul(g.batch, g.image());
  const int64_t y = checked_mul(g.positions(), g.out_channels);
  if (x == 0 || y == 0 || g.weights() == 0 || g.depthwise()) {
    return work;
  }
  const bool gathers = g.tiled() && !g.pointwise() && pass != ConvPass::dx;
  const int64_t gathered = round_up(checked_mul(y / g.out_channels * g.patch(), element), 256);
  if ((g.pointwise() && g.attrs.groups == 1) || (gathers && gathered <= kConvMostBytesCuda)) {
    // As matmul plans: partial products, for sums that the library splits.
    constexpr int64_t kMostOfProduct = int64_t{32} << 20;
    const int64_t results = pass == ConvPass::forward ? y : pass == ConvPass::dx ? x : g.weights();
    if (gathers) {
      work.columns = 0;
      work.bytes = gathered;
    }
    work.product = work.bytes;
    work.bytes += std::min(checked_mul(results, 256), kMostOfProduct);
    return work;
  }
  if (dtype == DType::f64) {
    return work;
  }
  const auto copy = [&](int64_t elements, int64_t channels) {
    const int64_t rows = elements / channels;
    if (dtype == DType::f32) {
      return checked_mul(elements, element);
    }
    return channels % 8 == 0 ? 0 : checked_mul(rows, round_up(channels, 8) * element);
  };
  int64_t bytes = int64_t{16} << 20;
  bytes = checked_add(bytes, copy(x, g.channels));
  bytes = checked_add(bytes, copy(y, g.out_channels));
  bytes = checked_add(bytes, copy(g.weights(), g.group_in()));
  if (pass == ConvPass::dw) {
    bytes = checked_add(bytes, checked_mul(g.weights(), 8));
  }
  work.bytes = std::min(bytes, kConvMostBytesCuda);
  return work;
}

ConvWorkspace conv_workspace(const ConvGeometry& g, ConvPass pass, DType dtype) {
  const int64_t element = dtype == DType::f64 ? 8 : 4;
  const bool widen = dtype_bits(dtype) == 16;
  ConvWorkspace work;
  const auto take = [&](int64_t elements) {
    const int64_t offset = work.bytes;
    work.bytes = checked_add(work.bytes, round_up(checked_mul(elements, element), 64));
    return offset;
  };
  if (g.depthwise()) {
    if (pass == ConvPass::dw) {
      work.slices = std::min(kDepthwiseSlices, g.batch * g.out_height);
      work.accumulator = take(work.slices * g.taps() * g.channels);
    } else {
      work.weight = take(g.taps() * g.channels);
    }
    return work;
  }
  const int64_t row_bytes = std::max<int64_t>(g.patch() + g.out_channels, 1) * element;
  const int64_t image_bytes = std::max<int64_t>(g.image(), 1) * element;
  work.images = g.batch;
  if (pass == ConvPass::dx && widen) {
    work.images =
        std::clamp<int64_t>(kConvChunkBytes / image_bytes, std::min<int64_t>(g.batch, 1), g.batch);
    work.accumulator = take(work.images * g.image());
  }
  work.rows = std::min(std::max<int64_t>(kConvChunkBytes / row_bytes, 1),
                       work.images * g.image_positions());
  if (!g.pointwise() || widen) {
    work.columns = take(work.rows * g.patch());
  }
  if (widen) {
    work.y = take(work.rows * g.out_channels);
    (pass == ConvPass::dw ? work.accumulator : work.weight) = take(g.weights());
  }
  return work;
}

const OpDef conv2d_op = {.name = "conv2d",
                         .infer = infer_conv2d,
                         .grad = grad_conv2d,
                         .flops = flops<ConvPass::forward>,
                         .workspace = workspace<ConvPass::forward>,
                         .cpu = conv2d_cpu};
const OpDef conv2d_dx_op = {.name = "conv2d_dx",
                            .infer = infer_conv2d_dx,
                            .flops = flops<ConvPass::dx>,
                            .workspace = workspace<ConvPass::dx>,
                            .cpu = conv2d_dx_cpu};
const OpDef conv2d_dw_op = {.name = "conv2d_dw",
                            .infer = infer_conv2d_dw,
                            .flops = flops<ConvPass::dw>,
                            .workspace = workspace<ConvPass::dw>,
                            .cpu = conv2d_dw_cpu};

ValueId conv2d(Graph& graph, ValueId x, ValueId weight, ValueId bias, const ConvAttrs& attrs) {
  return graph.emit(conv2d_op, {x, weight, bias}, attrs);
}

}  // namespace lithe
