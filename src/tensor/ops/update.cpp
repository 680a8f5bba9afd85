#include "tensor/ops/update.h"

#include "tensor/ops/moment_codes.h"
#include "tensor/ops/update_measures.h"

namespace lithe {
namespace {

// Moments and velocities are kept in fp32, for fp64 weights in fp64.
DType state_dtype(DType weight) { return weight == DType::f64 ? DType::f64 : DType::f32; }

void expect_dtype(const InferContext& c, int i, DType wanted, std::string_view what) {
  if (c.dtype(i) != wanted) {
    c.fail("{} is {} {}; {} is wanted", what, dtype_name(c.dtype(i)), c.shape(i),
           dtype_name(wanted));
  }
}

// The gradient's rows of a table of shape `table`.
void expect_rows(const InferContext& c, int gradient, int rows, const Shape& table) {
  if (table.rank() != 2 || c.shape(gradient).rank() != 2 || c.shape(gradient)[1] != table[1]) {
    c.fail("rows of a gradient are {} and the table {}; [R, H] and [V, H] are wanted",
           c.shape(gradient), table);
  }
  c.expect_shape(rows, Shape{table[0]}, "rows");
  expect_dtype(c, rows, DType::i32, "rows");
}

// A gradient has its weight's dtype, or fp32 where a 16-bit one was accumulated in fp32, or 16 bits
// where the step computed with a copy of an fp32 weight.
// `rows`: the input that maps the table's rows to those of the gradient, or one that is not there.
void expect_gradient(const InferContext& c, int gradient, int of, int rows, std::string_view what) {
  c.expect_floating(of);
  if (c.has(rows)) {
    expect_rows(c, gradient, rows, c.shape(of));
  } else {
    c.expect_shape(gradient, c.shape(of), what);
  }
  const DType dtype = c.dtype(gradient);
  const bool widened = dtype == DType::f32 && dtype_bits(c.dtype(of)) == 16;
  const bool of_copy = c.dtype(of) == DType::f32 && is_floating(dtype) && dtype_bits(dtype) == 16;
  if (dtype != c.dtype(of) && !widened && !of_copy) {
    c.fail("{} is {}, the tensor it updates {}; cast the gradient", what, dtype_name(dtype),
           dtype_name(c.dtype(of)));
  }
}

void expect_state(const InferContext& c, int i, std::string_view what) {
  c.expect_shape(i, c.shape(0), what);
  expect_dtype(c, i, state_dtype(c.dtype(0)), what);
}

void expect_counter(const InferContext& c, int i) {
  c.expect_shape(i, Shape{1}, "step");
  expect_dtype(c, i, DType::i64, "step");
}

void expect_scalar(const InferContext& c, int i, std::string_view what) {
  c.expect_shape(i, Shape{1}, what);
  if (c.dtype(i) != DType::f32 && c.dtype(i) != DType::f64) {
    c.fail("{} is {}; fp32 (or fp64) is wanted", what, dtype_name(c.dtype(i)));
  }
}

// The last outputs of an update.
void output_measures(InferContext& c, const UpdateMeasures& measures) {
  if (!(measures.floor > 0)) {
    c.fail("the floor {} under weights must be above 0", measures.floor);
  }
  if (measures.squares) {
    c.output(state_dtype(c.dtype(0)), Shape{1});
  }
  if (measures.change != ChangeMetric::none) {
    c.output(state_dtype(c.dtype(0)), Shape{1});
  }
}

void infer_adamw(InferContext& c) {
  const auto attrs = c.attr<AdamWAttrs>();
  if (c.input_count() < 6 || c.input_count() > 9) {
    c.fail("{} inputs given, 6 to 9 wanted", c.input_count());
  }
  for (int i = 0; i < 6; ++i) {
    if (!c.has(i) && i != 1) {
      c.fail("input {} is missing", i);
    }
  }
  if (c.has(1) == attrs.no_gradient) {
    c.fail("{}", c.has(1) ? "a gradient is given where there is to be none; leave it out"
                          : "input 1 (gradient) is missing; set no_gradient where there is none");
  }
  if (!(attrs.beta1 >= 0 && attrs.beta1 < 1 && attrs.beta2 >= 0 && attrs.beta2 < 1)) {
    c.fail("beta1 {} and beta2 {} must lie in [0, 1)", attrs.beta1, attrs.beta2);
  }
  c.expect_floating(0);
  if (c.has(1)) {
    expect_gradient(c, 1, 0, 8, "gradient");
  } else if (c.has(8)) {
    c.fail("there are rows, but no gradient; leave them out");
  }
  if (c.dtype(2) == DType::u8) {
    const int64_t n = c.shape(0).numel();
    c.expect_shape(2, moment_codes_shape(n), "m (codes)");
    c.expect_shape(3, moment_scales_shape(n), "v (scales)");
    expect_dtype(c, 3, DType::f32, "v (scales)");
  } else {
    expect_state(c, 2, "m");
    expect_state(c, 3, "v");
  }
  expect_counter(c, 4);
  expect_scalar(c, 5, "lr");
  if (c.has(6)) {
    expect_scalar(c, 6, "grad_scale");
  }
  for (int i : {0, 2, 3, 4}) {
    c.output(c.dtype(i), c.shape(i));
  }
  if (c.has(7)) {
    c.expect_shape(7, c.shape(0), "copy");
    if (!is_floating(c.dtype(7)) || dtype_bits(c.dtype(7)) != 16 || c.dtype(0) != DType::f32) {
      c.fail("the copy of a {} weight is {}; of fp32 weights, bf16 and fp16 copies are kept",
             dtype_name(c.dtype(0)), dtype_name(c.dtype(7)));
    }
    c.output(c.dtype(7), c.shape(7));
  }
  output_measures(c, attrs.measures);
}

void infer_sgd(InferContext& c) {
  c.expect_inputs(2, 7);
  const auto attrs = c.attr<SgdAttrs>();
  if (!(attrs.momentum >= 0 && attrs.momentum < 1)) {
    c.fail("momentum {} must lie in [0, 1)", attrs.momentum);
  }
  if (!c.has(4)) {
    c.fail("input 4 (lr) is missing");
  }
  expect_gradient(c, 1, 0, 6, "gradient");
  c.output(c.dtype(0), c.shape(0));
  if (attrs.momentum != 0) {
    if (!c.has(2) || !c.has(3)) {
      c.fail("momentum {} needs the slots velocity and step", attrs.momentum);
    }
    expect_state(c, 2, "velocity");
    expect_counter(c, 3);
    c.output(c.dtype(2), c.shape(2));
    c.output(c.dtype(3), c.shape(3));
  } else if (c.has(2) || c.has(3)) {
    c.fail("velocity and step are for momentum, which is 0; leave them out");
  } else if (attrs.nesterov) {
    c.fail("nesterov needs a momentum above 0");
  }
  expect_scalar(c, 4, "lr");
  if (c.has(5)) {
    expect_scalar(c, 5, "grad_scale");
  }
  output_measures(c, attrs.measures);
}

void infer_accumulate(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  c.expect_floating(1);
  c.expect_shape(1, c.shape(0), "gradient");
  const bool widened = c.dtype(0) == DType::f32 && dtype_bits(c.dtype(1)) == 16;
  if (c.dtype(0) != c.dtype(1) && !widened) {
    c.fail("cannot add {} to a sum in {}; use one dtype, or fp32 for a sum of 16-bit gradients",
           dtype_name(c.dtype(1)), dtype_name(c.dtype(0)));
  }
  c.output(c.dtype(0), c.shape(0));
}

void infer_assign(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  c.expect_floating(1);
  c.expect_shape(1, c.shape(0), "value");
  c.output(c.dtype(0), c.shape(0));
}

void infer_clear(InferContext& c) {
  c.expect_inputs(1);
  c.output(c.dtype(0), c.shape(0));
}

void infer_sum_squares(InferContext& c) {
  c.expect_inputs(1, 2);
  c.expect_floating(0);
  if (c.has(1)) {
    const bool tables = c.shape(0).rank() == 2 && c.shape(1).rank() == 1;
    expect_rows(c, 0, 1, tables ? Shape{c.shape(1)[0], c.shape(0)[1]} : Shape{});
  }
  c.output(state_dtype(c.dtype(0)), Shape{1});
}

void infer_clip_factor(InferContext& c) {
  c.expect_inputs(1, INT16_MAX);
  const double max_norm = c.attr<ClipAttrs>().max_norm;
  if (!(max_norm > 0)) {
    c.fail("max_norm {} must be above 0", max_norm);
  }
  for (int i = 0; i < c.input_count(); ++i) {
    if (!c.has(i)) {
      c.fail("input {} is missing", i);
    }
    expect_scalar(c, i, "a sum of squares");
  }
  c.output(DType::f32, Shape{1});
  c.output(DType::f32, Shape{1});
}

template <int kPerElement>
double flops(const Graph& g, NodeId n) {
  return kPerElement * static_cast<double>(g.shape(g.in(n, 0)).numel());
}

double flops_clip_factor(const Graph& g, NodeId n) { return g.node(n).input_count + 3.0; }

int64_t workspace_sums(const Graph& g, NodeId n) {
  return checked_mul(update_chunks(g.shape(g.in(n, 0)).numel()), sizeof(ChunkSums));
}

template <typename Attributes>
int64_t workspace_update(const Graph& g, NodeId n, DeviceKind) {
  return g.attr<Attributes>(n).measures.any() ? workspace_sums(g, n) : 0;
}

int64_t workspace_sum_squares(const Graph& g, NodeId n, DeviceKind) {
  const bool rows = g.node(n).input_count > 1 && g.in(n, 1) != kNoValue;
  const Shape& x = g.shape(g.in(n, 0));
  const int64_t elements = rows ? checked_mul(g.shape(g.in(n, 1))[0], x.back()) : x.numel();
  return checked_mul(update_chunks(elements), sizeof(ChunkSums));
}

// Of a node whose last outputs are the measures.
UpdateOut out_of(const Graph& g, NodeId n, const UpdateMeasures& measures) {
  UpdateOut out{.weight = g.output(n, 0)};
  int next = g.node(n).output_count;
  if (measures.change != ChangeMetric::none) {
    out.change = g.output(n, --next);
  }
  if (measures.squares) {
    out.squares = g.output(n, --next);
  }
  return out;
}

// Whatever calls these, they belong to the step's last phase.
class UpdatePhase {
 public:
  explicit UpdatePhase(Graph& graph) : graph_(graph), saved_(graph.phase()) {
    graph.set_phase(Phase::update);
  }
  ~UpdatePhase() { graph_.set_phase(saved_); }
  UpdatePhase(const UpdatePhase&) = delete;
  UpdatePhase& operator=(const UpdatePhase&) = delete;

 private:
  Graph& graph_;
  Phase saved_;
};

}  // namespace

const OpDef adamw_op = {.name = "adamw",
                        .infer = infer_adamw,
                        .flops = flops<14>,
                        .workspace = workspace_update<AdamWAttrs>,
                        .aliases = {{{Alias::mutate, 0, 0},
                                     {Alias::mutate, 1, 2},
                                     {Alias::mutate, 2, 3},
                                     {Alias::mutate, 3, 4},
                                     {Alias::mutate, 4, 7}}},
                        .cpu = adamw_cpu,
                        .has_effect = true,
                        .grouped = true};
const OpDef sgd_op = {
    .name = "sgd",
    .infer = infer_sgd,
    .flops = flops<6>,
    .workspace = workspace_update<SgdAttrs>,
    .aliases = {{{Alias::mutate, 0, 0}, {Alias::mutate, 1, 2}, {Alias::mutate, 2, 3}}},
    .cpu = sgd_cpu,
    .has_effect = true,
    .grouped = true};
const OpDef accumulate_op = {.name = "accumulate",
                             .infer = infer_accumulate,
                             .aliases = {{{Alias::mutate, 0, 0}}},
                             .cpu = accumulate_cpu,
                             .has_effect = true,
                             .grouped = true};
const OpDef assign_op = {.name = "assign",
                         .infer = infer_assign,
                         .flops = flops<0>,
                         .aliases = {{{Alias::mutate, 0, 0}}},
                         .cpu = assign_cpu,
                         .has_effect = true,
                         .grouped = true};
const OpDef clear_op = {.name = "clear",
                        .infer = infer_clear,
                        .flops = flops<0>,
                        .aliases = {{{Alias::mutate, 0, 0}}},
                        .cpu = clear_cpu,
                        .has_effect = true};
const OpDef sum_squares_op = {.name = "sum_squares",
                              .infer = infer_sum_squares,
                              .flops = flops<2>,
                              .workspace = workspace_sum_squares,
                              .cpu = sum_squares_cpu,
                              .grouped = true};
const OpDef clip_factor_op = {.name = "clip_factor",
                              .infer = infer_clip_factor,
                              .flops = flops_clip_factor,
                              .cpu = clip_factor_cpu};

UpdateOut adamw(Graph& graph, const AdamWInputs& in, const AdamWAttrs& attrs) {
  const UpdatePhase phase(graph);
  const std::array inputs = {in.weight, in.gradient,   in.m,    in.v,   in.step,
                             in.lr,     in.grad_scale, in.copy, in.rows};
  return out_of(graph, graph.emit_node(adamw_op, inputs, attrs), attrs.measures);
}

UpdateOut sgd(Graph& graph, const SgdInputs& in, const SgdAttrs& attrs) {
  const UpdatePhase phase(graph);
  const bool momentum = attrs.momentum != 0;
  const std::array inputs = {in.weight,
                             in.gradient,
                             momentum ? in.velocity : kNoValue,
                             momentum ? in.step : kNoValue,
                             in.lr,
                             in.grad_scale,
                             in.rows};
  return out_of(graph, graph.emit_node(sgd_op, inputs, attrs), attrs.measures);
}

ValueId accumulate(Graph& graph, ValueId sum, ValueId gradient) {
  const UpdatePhase phase(graph);
  return graph.emit(accumulate_op, {sum, gradient});
}

void assign(Graph& graph, ValueId slot, ValueId value) {
  const UpdatePhase phase(graph);
  graph.emit(assign_op, {slot, value});
}

void clear(Graph& graph, ValueId slot) {
  const UpdatePhase phase(graph);
  graph.emit(clear_op, {slot});
}

ValueId sum_squares(Graph& graph, ValueId x, ValueId rows) {
  const UpdatePhase phase(graph);
  return rows == kNoValue ? graph.emit(sum_squares_op, {x}) : graph.emit(sum_squares_op, {x, rows});
}

ClipOut clip_factor(Graph& graph, std::span<const ValueId> sums_of_squares, double max_norm) {
  const UpdatePhase phase(graph);
  const NodeId n = graph.emit_node(clip_factor_op, sums_of_squares, ClipAttrs{max_norm});
  return {graph.output(n, 0), graph.output(n, 1)};
}

}  // namespace lithe
