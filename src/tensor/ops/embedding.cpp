#include "tensor/ops/embedding.h"

namespace lithe {
namespace {

void expect_ids(const InferContext& c, int i) {
  if (c.dtype(i) != DType::i64) {
    c.fail("ids are {}; int64 is wanted", dtype_name(c.dtype(i)));
  }
}

void expect_padding(const InferContext& c, int64_t vocabulary) {
  const int64_t padding = c.attr<EmbeddingAttrs>().padding;
  if (padding != kNoPadding && (padding < 0 || padding >= vocabulary)) {
    c.fail("padding id {} is outside the table's [0, {})", padding, vocabulary);
  }
}

void infer(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  expect_ids(c, 1);
  if (c.shape(0).rank() != 2) {
    c.fail("the table has shape {}; [V, H] is wanted", c.shape(0));
  }
  expect_padding(c, c.shape(0)[0]);
  Shape out = c.shape(1);
  out.push_back(c.shape(0)[1]);
  c.output(c.dtype(0), out);
}

// Of both gradients' operands; returns the vocabulary.
int64_t expect_gradient(const InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  expect_ids(c, 1);
  const Shape& dy = c.shape(0);
  if (dy.rank() < 1) {
    c.fail("the gradient has shape {}; [..., H] is wanted", dy);
  }
  Shape wanted = c.shape(1);
  wanted.push_back(dy.back());
  c.expect_shape(0, wanted, "the gradient");
  const int64_t vocabulary = c.attr<EmbeddingAttrs>().vocabulary;
  expect_padding(c, vocabulary);
  return vocabulary;
}

void infer_grad(InferContext& c) {
  const int64_t vocabulary = expect_gradient(c);
  c.output(c.dtype(0), {vocabulary, c.shape(0).back()});
}

void infer_grad_rows(InferContext& c) {
  const int64_t vocabulary = expect_gradient(c);
  const int64_t ids = c.shape(1).numel();
  if (ids > INT32_MAX) {
    c.fail("{} ids are given; rows are for {} at most", ids, INT32_MAX);
  }
  c.output(c.dtype(0), {ids, c.shape(0).back()});
  c.output(DType::i32, {vocabulary});
}

void grad(GradContext& c) {
  if (c.wants(0)) {
    const EmbeddingAttrs attrs{c.shape(0)[0], c.attr<EmbeddingAttrs>().padding};
    c.set(0, c.graph.emit(embedding_grad_op, {c.dout(), c.in(1)}, attrs));
  }
}

double flops_none(const Graph&, NodeId) { return 0; }

double flops_grad(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}

int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind device) {
  const int64_t ids = g.shape(g.in(n, 1)).numel();
  const int64_t vocabulary = g.attr<EmbeddingAttrs>(n).vocabulary;
  if (device == DeviceKind::cpu) {
    // For each table row the first of its ids, for each id the next of the same row.
    return checked_mul(checked_add(vocabulary, ids), sizeof(int64_t));
  }
  const ValueId dy = g.in(n, 0);
  return embedding_scratch(ids, vocabulary, g.shape(dy).back(), g.dtype(dy)).bytes;
}

}  // namespace

const OpDef embedding_op = {
    .name = "embedding", .infer = infer, .grad = grad, .flops = flops_none, .cpu = embedding_cpu};
const OpDef embedding_grad_op = {.name = "embedding_grad",
                                 .infer = infer_grad,
                                 .flops = flops_grad,
                                 .workspace = workspace_grad,
                                 .cpu = embedding_grad_cpu};
const OpDef embedding_grad_rows_op = {.name = "embedding_grad_rows",
                                      .infer = infer_grad_rows,
                                      .flops = flops_grad,
                                      .workspace = workspace_grad,
                                      .cpu = embedding_grad_rows_cpu};

EmbeddingScratch embedding_scratch(int64_t n, int64_t vocabulary, int64_t hidden, DType dtype) {
  using S = EmbeddingScratch;
  const auto pieces = [](int64_t items, int64_t size) {
    return items / size + (items % size != 0 ? 1 : 0);
  };
  S s;
  if (n == 0) {
    return s;
  }
  // Whole multiples of kRankTile.
  s.tile = checked_mul(pieces(pieces(n, S::kMostTiles), S::kRankTile), S::kRankTile);
  s.tiles = pieces(n, s.tile);
  const auto take = [&s](int64_t items, int64_t size) {
    const int64_t at = s.bytes;
    s.bytes = round_up(checked_add(at, checked_mul(items, size)), 16);
    return at;
  };
  const int64_t word = sizeof(uint32_t);
  const int64_t sum = dtype == DType::f64 ? sizeof(double) : sizeof(float);
  s.totals = take(vocabulary, word);
  s.counts = take(checked_mul(s.tiles, vocabulary), word);
  s.bases = take(checked_add(vocabulary, 1), word);
  s.ranks = take(n, word);
  s.order = take(n, word);
  s.rows = take(n, word);
  s.partials = take(checked_mul(checked_mul(pieces(n, S::kRunTile), 2), hidden), sum);
  return s;
}

ValueId embedding(Graph& graph, ValueId table, ValueId ids, int64_t padding) {
  return graph.emit(embedding_op, {table, ids}, EmbeddingAttrs{.padding = padding});
}

}  // namespace lithe
