#include "sample_ops.h"

#include <cstring>

namespace lithe::test {
namespace {

void infer_same(InferContext& c) {
  c.expect_inputs(1);
  c.output(c.dtype(0), c.shape(0));
}

void infer_sum(InferContext& c) {
  c.expect_inputs(2);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "the second term");
  c.output(c.dtype(0), c.shape(0));
}

void infer_flat(InferContext& c) {
  c.expect_inputs(1);
  c.output(c.dtype(0), Shape{c.shape(0).numel()});
}

void infer_split(InferContext& c) {
  c.expect_inputs(1);
  c.output(c.dtype(0), c.shape(0));
  c.output(c.dtype(0), c.shape(0));
}

template <typename F>
void each(const KernelArgs& args, F f) {
  for (int64_t i = 0; i < args.in[0].numel(); ++i) {
    f(i);
  }
}

void copy_cpu(const KernelArgs& args) {
  const float* x = args.in[0].as<float>();
  float* y = args.out[0].as<float>();
  each(args, [&](int64_t i) { y[i] = x[i]; });
}

void twice_cpu(const KernelArgs& args) {
  const float* x = args.in[0].as<float>();
  float* y = args.out[0].as<float>();
  each(args, [&](int64_t i) { y[i] = twice(x[i]); });
}

void sum_cpu(const KernelArgs& args) {
  const float* a = args.in[0].as<float>();
  const float* b = args.in[1].as<float>();
  float* y = args.out[0].as<float>();
  each(args, [&](int64_t i) { y[i] = a[i] + b[i]; });
}

void view_cpu(const KernelArgs& /*args*/) {}

void scratch_cpu(const KernelArgs& args) {
  auto* scratch = static_cast<float*>(args.workspace);
  const float* x = args.in[0].as<float>();
  float* y = args.out[0].as<float>();
  each(args, [&](int64_t i) { scratch[i] = x[i]; });
  each(args, [&](int64_t i) { y[i] = scratch[i] + 1; });
}

void split_cpu(const KernelArgs& args) {
  const float* x = args.in[0].as<float>();
  float* up = args.out[0].as<float>();
  float* down = args.out[1].as<float>();
  each(args, [&](int64_t i) {
    const float value = x[i];
    up[i] = value + 1;
    down[i] = value - 1;
  });
}

void grad_twice(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, c.graph.emit(twice_op, {c.dout()}));
  }
}

void grad_sum(GradContext& c) {
  for (int i : {0, 1}) {
    if (c.wants(i)) {
      c.set(i, c.dout());
    }
  }
}

void grad_copy(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, c.graph.emit(copy_op, {c.dout()}));
  }
}

void define_twice(Graph& g, NodeId n, std::span<ValueId> outputs) {
  outputs[0] = g.emit(sum_op, {g.in(n, 0), g.in(n, 0)});
}

int64_t scratch_bytes(const Graph& g, NodeId n, DeviceKind) { return g.bytes(g.in(n, 0)); }

constexpr AliasRules kEither = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}}};

}  // namespace

const OpDef copy_op = {.name = "copy", .infer = infer_same, .grad = grad_copy, .cpu = copy_cpu};
const OpDef twice_op = {.name = "twice",
                        .infer = infer_same,
                        .grad = grad_twice,
                        .define = define_twice,
                        .aliases = {{{Alias::in_place, 0, 0}}},
                        .cpu = twice_cpu};
const OpDef sum_op = {
    .name = "sum", .infer = infer_sum, .grad = grad_sum, .aliases = kEither, .cpu = sum_cpu};
const OpDef flat_op = {
    .name = "flat", .infer = infer_flat, .aliases = {{{Alias::view, 0, 0}}}, .cpu = view_cpu};
const OpDef scratch_op = {
    .name = "scratch", .infer = infer_same, .workspace = scratch_bytes, .cpu = scratch_cpu};
const OpDef split_op = {.name = "split",
                        .infer = infer_split,
                        .aliases = {{{Alias::in_place, 0, 0}, {Alias::in_place, 1, 0}}},
                        .cpu = split_cpu};
const OpDef bump_op = {.name = "bump",
                       .infer = infer_sum,
                       .aliases = {{{Alias::mutate, 0, 0}}},
                       .cpu = sum_cpu,
                       .has_effect = true};
const OpDef opaque_op = {.name = "opaque", .infer = infer_same, .cpu = copy_cpu};

}  // namespace lithe::test
