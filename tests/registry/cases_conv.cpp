// Convolutions, pools and resampling on channels-last images.
#include "registry/registry.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/conv_geometry.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

struct ConvSize {
  Shape x;
  Shape weight;
  ConvAttrs attrs;
};

constexpr ConvAttrs square(int stride, int pad, int groups = 1) {
  return {stride, stride, pad, pad, groups};
}

const std::vector<ConvSize> kConvs = {
    {{2, 7, 5, 4}, {6, 3, 3, 4}, square(1, 1)},
    {{2, 7, 5, 4}, {6, 3, 3, 2}, square(2, 1, 2)},  // groups
    {{1, 6, 7, 3}, {5, 3, 2, 3}, {1, 2, 0, 1, 1}},  // nothing is square
    {{2, 5, 4, 3}, {3, 3, 3, 1}, square(1, 1, 3)},  // depthwise
    {{1, 6, 5, 3}, {3, 3, 3, 1}, square(2, 0, 3)},  // depthwise with a stride
    {{2, 4, 4, 2}, {4, 3, 3, 1}, square(1, 1, 2)},  // two filters a channel
    {{2, 3, 4, 5}, {3, 1, 1, 5}, square(1, 0)},     // pointwise
    {{2, 3, 4, 4}, {6, 1, 1, 2}, square(1, 0, 2)},  // pointwise in groups
    {{2, 5, 4, 3}, {2, 1, 1, 3}, square(2, 0)},     // pointwise with a stride
    {{2, 8, 12, 3}, {5, 4, 4, 3}, square(4, 0)},    // patches
    {{1, 9, 5, 1}, {3, 4, 4, 1}, square(4, 0)},     // patches, a rest at the border
    {{1, 1, 1, 1}, {1, 1, 1, 1}, square(1, 0)},
    {{1, 1, 2, 2}, {2, 3, 3, 2}, square(1, 1)},  // a kernel larger than the image
    {{0, 5, 5, 2}, {3, 3, 3, 2}, square(1, 1)},
    // channels that move in packs, more than one tile of positions
    {{2, 9, 8, 16}, {24, 3, 3, 16}, square(1, 1)},
    {{1, 12, 11, 32}, {16, 3, 3, 8}, square(2, 1, 4)},
    {{2, 9, 8, 8}, {72, 4, 4, 8}, square(4, 0)},
};

void add_conv(std::vector<Case>& cases, const ConvSize& s) {
  const ConvGeometry g = conv_geometry(s.x, s.weight, s.attrs);
  const Shape y{g.batch, g.out_height, g.out_width, g.out_channels};
  const std::string name =
      fmt::format("x {} w {} stride {}x{} pad {}x{} groups {}", s.x, s.weight, s.attrs.stride_h,
                  s.attrs.stride_w, s.attrs.pad_h, s.attrs.pad_w, s.attrs.groups);
  for (bool has_bias : {true, false}) {
    std::vector<Input> inputs = {{.shape = s.x}, {.shape = s.weight}};
    if (has_bias) {
      inputs.push_back({.shape = {s.weight[0]}});
    }
    cases.push_back({.op = &conv2d_op,
                     .name = name + (has_bias ? " bias" : ""),
                     .inputs = inputs,
                     .build = [=](Graph& graph, Values v) -> Outputs {
                       return {conv2d(graph, v[0], v[1], has_bias ? v[2] : kNoValue, s.attrs)};
                     }});
  }
  cases.push_back(
      {.op = &conv2d_dx_op,
       .name = name,
       .inputs = {{.shape = y}, {.shape = s.weight}},
       .build = [=](Graph& graph, Values v) -> Outputs {
         return {graph.emit(conv2d_dx_op, {v[0], v[1]}, ConvDxAttrs{s.attrs, s.x[1], s.x[2]})};
       }});
  cases.push_back({.op = &conv2d_dw_op,
                   .name = name,
                   .inputs = {{.shape = s.x}, {.shape = y}},
                   .build = [=](Graph& graph, Values v) -> Outputs {
                     return {graph.emit(conv2d_dw_op, {v[0], v[1]},
                                        ConvDwAttrs{s.attrs, s.weight[1], s.weight[2]})};
                   }});
}

struct PoolSize {
  Shape x;
  PoolAttrs attrs;
};

const std::vector<PoolSize> kPools = {
    {{2, 6, 4, 3}, {2, 2, 2, 2, 0, 0}},
    {{2, 7, 5, 3}, {2, 2, 2, 2, 0, 0}},   // a rest at the border
    {{2, 7, 6, 3}, {3, 3, 2, 2, 1, 1}},   // windows overlap
    {{1, 5, 6, 2}, {3, 2, 1, 2, 1, 0}},   // nothing is square
    {{1, 4, 5, 70}, {4, 5, 1, 1, 0, 0}},  // the whole image, many channels
    {{1, 7, 7, 2}, {1, 1, 3, 3, 0, 0}},   // pixels that no window sees
    {{1, 1, 1, 1}, {1, 1, 1, 1, 0, 0}},
    {{1, 1, 1, 3}, {3, 3, 1, 1, 1, 1}},  // mostly padding
    {{0, 4, 4, 2}, {2, 2, 2, 2, 0, 0}},
    {{2, 9, 8, 16}, {3, 3, 2, 2, 1, 1}},  // channels that move in packs
};

void add_pool(std::vector<Case>& cases, const PoolSize& s) {
  const PoolAttrs& a = s.attrs;
  const std::string name = fmt::format("{} kernel {}x{} stride {}x{} pad {}x{}", s.x, a.kernel_h,
                                       a.kernel_w, a.stride_h, a.stride_w, a.pad_h, a.pad_w);
  const PoolGradAttrs back{a, s.x[1], s.x[2]};
  const Shape y{s.x[0], (s.x[1] + 2 * a.pad_h - a.kernel_h) / a.stride_h + 1,
                (s.x[2] + 2 * a.pad_w - a.kernel_w) / a.stride_w + 1, s.x[3]};
  cases.push_back(
      {.op = &avg_pool2d_op,
       .name = name,
       .inputs = {{.shape = s.x}},
       .build = [=](Graph& graph, Values v) -> Outputs { return {avg_pool2d(graph, v[0], a)}; }});
  cases.push_back({.op = &avg_pool2d_grad_op,
                   .name = name,
                   .inputs = {{.shape = y}},
                   .build = [=](Graph& graph, Values v) -> Outputs {
                     return {graph.emit(avg_pool2d_grad_op, {v[0]}, back)};
                   }});
  // No 16-bit runs: rounding x makes ties, and another element wins.
  const std::vector<Input> distinct = {{.shape = s.x, .fill = Fill::distinct}};
  cases.push_back({.op = &max_pool2d_op,
                   .name = name,
                   .inputs = distinct,
                   .build = [=](Graph& graph, Values v) -> Outputs {
                     const ValueId top = max_pool2d(graph, v[0], a);
                     return {top, graph.output(graph.value(top).producer, 1)};
                   },
                   .halves = false});
  cases.push_back({.op = &max_pool2d_grad_op,
                   .name = name,
                   .inputs = {{.shape = s.x, .fill = Fill::distinct}, {.shape = y}},
                   .build = [=](Graph& graph, Values v) -> Outputs {
                     const ValueId top = max_pool2d(graph, v[0], a);
                     const ValueId indices = graph.output(graph.value(top).producer, 1);
                     return {graph.emit(max_pool2d_grad_op, {v[1], indices}, back)};
                   },
                   .halves = false});
}

void add_resample(std::vector<Case>& cases, const Shape& small, int factor) {
  const int64_t f = factor;
  const Shape large{small[0], small[1] * f, small[2] * f, small[3]};
  const Shape deep{small[0], small[1], small[2], small[3] * f * f};
  const ResampleAttrs attrs{factor};
  const auto add = [&](const OpDef& op, const Shape& x) {
    cases.push_back({.op = &op,
                     .name = fmt::format("{} factor {}", x, factor),
                     .inputs = {{.shape = x}},
                     .build = [&op, attrs](Graph& graph, Values v) -> Outputs {
                       return {graph.emit(op, {v[0]}, attrs)};
                     }});
  };
  add(upsample_nearest_op, small);
  add(upsample_nearest_grad_op, large);
  add(pixel_unshuffle_op, large);
  add(pixel_shuffle_op, deep);
}

}  // namespace

void add_conv_cases(std::vector<Case>& cases) {
  for (const ConvSize& s : kConvs) {
    add_conv(cases, s);
  }
  for (const PoolSize& s : kPools) {
    add_pool(cases, s);
  }
  for (const Shape& small : {Shape{1, 1, 1, 1}, Shape{2, 3, 4, 3}, Shape{1, 5, 1, 7},
                             Shape{1, 2, 3, 70}, Shape{2, 3, 2, 16}, Shape{0, 2, 2, 3}}) {
    for (int factor : {1, 2, 3}) {
      add_resample(cases, small, factor);
    }
  }
}

}  // namespace lithe::registry
