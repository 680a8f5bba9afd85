#include <limits>

#include "tensor/ops/conv.h"

namespace lithe {
namespace {

void expect_pool(const InferContext& c, const PoolAttrs& a, int64_t height, int64_t width) {
  if (a.kernel_h < 1 || a.kernel_w < 1 || a.stride_h < 1 || a.stride_w < 1) {
    c.fail("kernel {} x {} and strides {} x {} must be at least 1", a.kernel_h, a.kernel_w,
           a.stride_h, a.stride_w);
  }
  // With less padding than kernel every window holds a pixel.
  if (a.pad_h < 0 || a.pad_w < 0 || a.pad_h >= a.kernel_h || a.pad_w >= a.kernel_w) {
    c.fail("padding {} x {} must be at least 0 and smaller than the kernel {} x {}", a.pad_h,
           a.pad_w, a.kernel_h, a.kernel_w);
  }
  if (height < 1 || width < 1 || height + 2 * a.pad_h < a.kernel_h ||
      width + 2 * a.pad_w < a.kernel_w) {
    c.fail("the kernel {} x {} does not fit into {} x {} pixels with padding {} x {}", a.kernel_h,
           a.kernel_w, height, width, a.pad_h, a.pad_w);
  }
}

Shape pooled(const Shape& x, const PoolAttrs& a) {
  return {x[0], (x[1] + 2 * a.pad_h - a.kernel_h) / a.stride_h + 1,
          (x[2] + 2 * a.pad_w - a.kernel_w) / a.stride_w + 1, x[3]};
}

void expect_images(const InferContext& c, int i, std::string_view what) {
  c.expect_floating(i);
  if (c.shape(i).rank() != 4) {
    c.fail("{} has shape {}; [batch, height, width, channels] is wanted", what, c.shape(i));
  }
}

template <bool kIndices>
void infer_pool(InferContext& c) {
  c.expect_inputs(1);
  expect_images(c, 0, "x");
  const auto attrs = c.attr<PoolAttrs>();
  const Shape& x = c.shape(0);
  expect_pool(c, attrs, x[1], x[2]);
  const Shape y = pooled(x, attrs);
  c.output(c.dtype(0), y);
  if (kIndices) {
    if (x[1] > std::numeric_limits<int32_t>::max() / x[2]) {
      c.fail("{} x {} pixels do not fit the 32-bit indices; cut the image", x[1], x[2]);
    }
    c.output(DType::i32, y);
  }
}

template <bool kIndices>
void infer_pool_grad(InferContext& c) {
  c.expect_inputs(kIndices ? 2 : 1);
  expect_images(c, 0, "dy");
  const auto attrs = c.attr<PoolGradAttrs>();
  expect_pool(c, attrs.pool, attrs.height, attrs.width);
  const Shape x{c.shape(0)[0], attrs.height, attrs.width, c.shape(0)[3]};
  c.expect_shape(0, pooled(x, attrs.pool), "dy");
  if (kIndices) {
    c.expect_shape(1, c.shape(0), "indices");
    if (c.dtype(1) != DType::i32) {
      c.fail("indices are {}; int32 is wanted", dtype_name(c.dtype(1)));
    }
  }
  c.output(c.dtype(0), x);
}

void grad_avg_pool2d(GradContext& c) {
  if (c.wants(0)) {
    const PoolGradAttrs attrs{c.attr<PoolAttrs>(), c.shape(0)[1], c.shape(0)[2]};
    c.set(0, c.graph.emit(avg_pool2d_grad_op, {c.dout()}, attrs));
  }
}

void grad_max_pool2d(GradContext& c) {
  if (c.wants(0)) {
    const PoolGradAttrs attrs{c.attr<PoolAttrs>(), c.shape(0)[1], c.shape(0)[2]};
    c.set(0, c.graph.emit(max_pool2d_grad_op, {c.dout(), c.out(1)}, attrs));
  }
}

double window_flops(const Graph& g, ValueId y, const PoolAttrs& a) {
  return static_cast<double>(g.shape(y).numel()) * a.kernel_h * a.kernel_w;
}

double flops_pool(const Graph& g, NodeId n) {
  return window_flops(g, g.output(n, 0), g.attr<PoolAttrs>(n));
}

double flops_pool_grad(const Graph& g, NodeId n) {
  return window_flops(g, g.in(n, 0), g.attr<PoolGradAttrs>(n).pool);
}

}  // namespace

const OpDef avg_pool2d_op = {.name = "avg_pool2d",
                             .infer = infer_pool<false>,
                             .grad = grad_avg_pool2d,
                             .flops = flops_pool,
                             .cpu = avg_pool2d_cpu};
const OpDef avg_pool2d_grad_op = {.name = "avg_pool2d_grad",
                                  .infer = infer_pool_grad<false>,
                                  .flops = flops_pool_grad,
                                  .cpu = avg_pool2d_grad_cpu};
const OpDef max_pool2d_op = {.name = "max_pool2d",
                             .infer = infer_pool<true>,
                             .grad = grad_max_pool2d,
                             .flops = flops_pool,
                             .cpu = max_pool2d_cpu};
const OpDef max_pool2d_grad_op = {.name = "max_pool2d_grad",
                                  .infer = infer_pool_grad<true>,
                                  .flops = flops_pool_grad,
                                  .cpu = max_pool2d_grad_cpu};

ValueId avg_pool2d(Graph& graph, ValueId x, const PoolAttrs& attrs) {
  return graph.emit(avg_pool2d_op, {x}, attrs);
}

ValueId max_pool2d(Graph& graph, ValueId x, const PoolAttrs& attrs) {
  return graph.emit(max_pool2d_op, {x}, attrs);
}

}  // namespace lithe
