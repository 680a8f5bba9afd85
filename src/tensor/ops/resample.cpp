#include "tensor/ops/conv.h"

namespace lithe {
namespace {

int expect(const InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const int factor = c.attr<ResampleAttrs>().factor;
  if (c.shape(0).rank() != 4) {
    c.fail("x has shape {}; [batch, height, width, channels] is wanted", c.shape(0));
  }
  if (factor < 1) {
    c.fail("factor {} must be at least 1", factor);
  }
  return factor;
}

void expect_divisible(const InferContext& c, int factor) {
  const Shape& x = c.shape(0);
  if (x[1] % factor != 0 || x[2] % factor != 0) {
    c.fail("the {} x {} pixels of {} are no multiples of the factor {}; resize or pad the image",
           x[1], x[2], x, factor);
  }
}

void infer_upsample_nearest(InferContext& c) {
  const int f = expect(c);
  const Shape& x = c.shape(0);
  c.output(c.dtype(0), Shape{x[0], checked_mul(x[1], f), checked_mul(x[2], f), x[3]});
}

void infer_upsample_nearest_grad(InferContext& c) {
  const int f = expect(c);
  expect_divisible(c, f);
  const Shape& x = c.shape(0);
  c.output(c.dtype(0), Shape{x[0], x[1] / f, x[2] / f, x[3]});
}

void infer_pixel_unshuffle(InferContext& c) {
  const int64_t f = expect(c);
  expect_divisible(c, static_cast<int>(f));
  const Shape& x = c.shape(0);
  c.output(c.dtype(0), Shape{x[0], x[1] / f, x[2] / f, checked_mul(x[3], f * f)});
}

void infer_pixel_shuffle(InferContext& c) {
  const int64_t f = expect(c);
  const Shape& x = c.shape(0);
  if (x[3] % (f * f) != 0) {
    c.fail("the {} channels of {} are no multiple of {} x {}", x[3], x, f, f);
  }
  c.output(c.dtype(0), Shape{x[0], checked_mul(x[1], f), checked_mul(x[2], f), x[3] / (f * f)});
}

// All four are linear and come in pairs: each one's gradient is its partner.
template <const OpDef& kPartner>
void grad(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, c.graph.emit(kPartner, {c.dout()}, c.attr<ResampleAttrs>()));
  }
}

double no_flops(const Graph&, NodeId) { return 0; }

double flops_upsample_grad(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}

ValueId resample(Graph& graph, const OpDef& op, ValueId x, int factor) {
  return factor == 1 ? x : graph.emit(op, {x}, ResampleAttrs{factor});
}

}  // namespace

const OpDef upsample_nearest_op = {.name = "upsample_nearest",
                                   .infer = infer_upsample_nearest,
                                   .grad = grad<upsample_nearest_grad_op>,
                                   .flops = no_flops,
                                   .cpu = upsample_nearest_cpu};
const OpDef upsample_nearest_grad_op = {.name = "upsample_nearest_grad",
                                        .infer = infer_upsample_nearest_grad,
                                        .grad = grad<upsample_nearest_op>,
                                        .flops = flops_upsample_grad,
                                        .cpu = upsample_nearest_grad_cpu};
const OpDef pixel_unshuffle_op = {.name = "pixel_unshuffle",
                                  .infer = infer_pixel_unshuffle,
                                  .grad = grad<pixel_shuffle_op>,
                                  .flops = no_flops,
                                  .cpu = pixel_unshuffle_cpu};
const OpDef pixel_shuffle_op = {.name = "pixel_shuffle",
                                .infer = infer_pixel_shuffle,
                                .grad = grad<pixel_unshuffle_op>,
                                .flops = no_flops,
                                .cpu = pixel_shuffle_cpu};

ValueId upsample_nearest(Graph& graph, ValueId x, int factor) {
  return resample(graph, upsample_nearest_op, x, factor);
}

ValueId pixel_unshuffle(Graph& graph, ValueId x, int factor) {
  return resample(graph, pixel_unshuffle_op, x, factor);
}

ValueId pixel_shuffle(Graph& graph, ValueId x, int factor) {
  return resample(graph, pixel_shuffle_op, x, factor);
}

}  // namespace lithe
