// Shapes that fill a GPU: ViT-B/16 at batch 128 (25216 rows of 768) and its like. Each touches more
// than the second-level cache holds, so that figures are of memory.
#include <cmath>

#include "registry/modes.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/update.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

void add_products(std::vector<Case>& cases) {
  const std::vector<Input> layer = {
      {.shape = {25216, 768}}, {.shape = {3072, 768}}, {.shape = {3072}}};
  cases.push_back({&linear_op, "large 25216x768x3072", layer,
                   [](Graph& g, Values v) -> Outputs { return {linear(g, v[0], v[1], v[2]).y}; }});
  cases.push_back(
      {&linear_op, "large gelu 25216x768x3072", layer, [](Graph& g, Values v) -> Outputs {
         return {linear(g, v[0], v[1], v[2], Activation::gelu).y};
       }});
  cases.push_back({&matmul_op,
                   "large 4096x4096x4096",
                   {{.shape = {4096, 4096}}, {.shape = {4096, 4096}}},
                   [](Graph& g, Values v) -> Outputs { return {matmul(g, v[0], v[1])}; }});
  cases.push_back(
      {&linear_op, "large gelu_tanh 25216x768x3072", layer, [](Graph& g, Values v) -> Outputs {
         return {linear(g, v[0], v[1], v[2], Activation::gelu_tanh).y};
       }});
  // A layer of BERT-base on 32 passages of 384 tokens: forward, dx and dW of its three shapes.
  struct Layer {
    int64_t in, out;
  };
  constexpr int64_t kRows = 12288;
  for (const Layer s : {Layer{768, 768}, Layer{768, 3072}, Layer{3072, 768}}) {
    const Shape x{kRows, s.in};
    const Shape y{kRows, s.out};
    const Shape weight{s.out, s.in};
    const std::string size = fmt::format("{}x{}x{}", kRows, s.in, s.out);
    cases.push_back(
        {&linear_op,
         "large " + size,
         {{.shape = x}, {.shape = weight}, {.shape = {s.out}}},
         [](Graph& g, Values v) -> Outputs { return {linear(g, v[0], v[1], v[2]).y}; }});
    cases.push_back({&matmul_op,
                     "large dx " + size,
                     {{.shape = y}, {.shape = weight}},
                     [](Graph& g, Values v) -> Outputs { return {matmul(g, v[0], v[1])}; }});
    cases.push_back(
        {&matmul_op,
         "large dx added " + size,
         {{.shape = y}, {.shape = weight}, {.shape = x}},
         [](Graph& g, Values v) -> Outputs { return {matmul(g, v[0], v[1], {}, v[2])}; }});
    cases.push_back({&matmul_op,
                     "large dw " + size,
                     {{.shape = y}, {.shape = x}},
                     [](Graph& g, Values v) -> Outputs {
                       return {matmul(g, v[0], v[1], {.transpose_a = true})};
                     }});
    cases.push_back({&linear_dw_op,
                     "large " + size,
                     {{.shape = y}, {.shape = x}},
                     [](Graph& g, Values v) -> Outputs {
                       const NodeId n = g.emit_node(linear_dw_op, v);
                       return {g.output(n, 0), g.output(n, 1)};
                     }});
    cases.push_back(
        {&bias_grad_op, "large " + size, {{.shape = y}}, [](Graph& g, Values v) -> Outputs {
           return {g.emit(bias_grad_op, {v[0]})};
         }});
  }
  // Its query, key and value at once, and the head that marks answers: two outputs a token.
  const Shape tokens{kRows, 768};
  for (const bool bias : {true, false}) {
    cases.push_back(
        {&linear_stack_dw_op, fmt::format("large 3 x 12288x768x768{}", bias ? " bias" : ""),
         std::vector<Input>(4, {.shape = tokens}), [bias](Graph& g, Values v) -> Outputs {
           const NodeId n = g.emit_node(linear_stack_dw_op, v, LinearStackDwAttrs{3, bias});
           return {g.outputs(n).begin(), g.outputs(n).end()};
         }});
  }
  // The same from a packed gradient, on 32 passages and on 128. Slots lie one behind the other.
  for (const int64_t rows : {kRows, 4 * kRows}) {
    const Input packed{.shape = {rows, 3 * 768}};
    const Input x{.shape = {rows, 768}};
    for (const bool slots : {true, false}) {
      const Input weight{.shape = {768, 768}, .slot = slots};
      cases.push_back({&linear_packed_dx_op,
                       fmt::format("large {}x2304x768 added{}", rows, slots ? "" : ", apart"),
                       {packed, x, weight, weight, weight},
                       [](Graph& g, Values v) -> Outputs {
                         return {linear_packed_dx(g, v[0], v.subspan(2), v[1])};
                       }});
    }
    for (const LinearPackedDwAttrs attrs : {LinearPackedDwAttrs{3, 7}, LinearPackedDwAttrs{3, 5}}) {
      cases.push_back({&linear_packed_dw_op,
                       fmt::format("large {}x2304x768 weights {:#b}", rows, attrs.weights),
                       {packed, x},
                       [attrs](Graph& g, Values v) -> Outputs {
                         const NodeId n = g.emit_node(linear_packed_dw_op, v, attrs);
                         return {g.outputs(n).begin(), g.outputs(n).end()};
                       }});
    }
  }
  const Shape answers{kRows, 2};
  cases.push_back({&linear_op,
                   "large 12288x768x2",
                   {{.shape = tokens}, {.shape = {2, 768}}, {.shape = {2}}},
                   [](Graph& g, Values v) -> Outputs { return {linear(g, v[0], v[1], v[2]).y}; }});
  cases.push_back({&matmul_op,
                   "large dx 12288x768x2",
                   {{.shape = answers}, {.shape = {2, 768}}},
                   [](Graph& g, Values v) -> Outputs { return {matmul(g, v[0], v[1])}; }});
  cases.push_back({&linear_dw_op,
                   "large 12288x768x2",
                   {{.shape = answers}, {.shape = tokens}},
                   [](Graph& g, Values v) -> Outputs {
                     const NodeId n = g.emit_node(linear_dw_op, v);
                     return {g.output(n, 0), g.output(n, 1)};
                   }});
  const Shape heads{384, 197, 64};
  cases.push_back({&matmul_op,
                   "large scores 384x197x64x197",
                   {{.shape = heads}, {.shape = heads}},
                   [](Graph& g, Values v) -> Outputs {
                     return {matmul(g, v[0], v[1], {.transpose_b = true, .alpha = 0.125})};
                   }});
}

// BERT-base on sentences and on passages, ViT-B/16, the three resolutions of a latent-diffusion
// UNet. BERT trains with dropout and pads.
void add_attention(std::vector<Case>& cases) {
  struct Size {
    int64_t batch, tokens, heads, dim;
    bool trains = false;
  };
  for (const Size s : {Size{32, 128, 12, 64}, Size{32, 128, 12, 64, true}, Size{32, 384, 12, 64},
                       Size{32, 384, 12, 64, true}, Size{128, 197, 12, 64}, Size{4, 4096, 8, 40},
                       Size{4, 1024, 8, 80}, Size{4, 256, 8, 160}}) {
    const Shape shape{s.batch, s.tokens, s.heads, s.dim};
    std::vector<Input> inputs = {{.shape = shape}, {.shape = shape}, {.shape = shape}};
    AttentionAttrs attrs{.scale = 1 / std::sqrt(static_cast<double>(s.dim))};
    if (s.trains) {
      attrs.dropout = 0.1;
      attrs.dropout_key = 5;
      inputs.push_back({.shape = {s.batch, s.tokens}, .fill = Fill::mask});
      inputs.push_back({.shape = {2}, .fill = Fill::rng});
    }
    cases.push_back({&attention_op,
                     fmt::format("large B{} T{} N{} D{}{}", s.batch, s.tokens, s.heads, s.dim,
                                 s.trains ? " mask dropout" : ""),
                     inputs, [attrs](Graph& g, Values v) -> Outputs {
                       return {v.size() > 3 ? attention(g, v[0], v[1], v[2], attrs, v[3], v[4])
                                            : attention(g, v[0], v[1], v[2], attrs)};
                     }});
    Case derived = cases.back();
    derived.name += " no output";
    derived.rewrite = [](Graph& g) {
      for (const NodeId n : g.order()) {
        if (g.node(n).op == &attention_grad_op) {
          g.replace_input(n, kAttentionGradOutput, kNoValue);
        }
      }
    };
    cases.push_back(std::move(derived));
  }
}

// Packed gradients of attention with and without the sums that the biases take: BERT-base on
// passages, ViT-B/16.
void add_bias_sums(std::vector<Case>& cases) {
  struct Size {
    int64_t batch, tokens;
    bool is_bert;
  };
  for (const Size s : {Size{32, 384, true}, Size{128, 197, false}}) {
    for (const bool sums : {false, true}) {
      const Shape shape{s.batch, s.tokens, 12, 64};
      AttentionGradAttrs attrs{.forward = {.scale = 0.125}, .packed = true, .bias_sums = sums};
      std::vector<Input> inputs(6, {.shape = shape});
      inputs[4] = {.shape = {s.batch, 12, s.tokens}, .fill = Fill::positive, .widened = true};
      if (s.is_bert) {
        attrs.forward.dropout = 0.1;
        attrs.forward.dropout_key = 5;
        inputs.push_back({.shape = {s.batch, s.tokens}, .fill = Fill::mask});
        inputs.push_back({.shape = {2}, .fill = Fill::rng});
      }
      cases.push_back(
          {&attention_grad_op,
           fmt::format("large B{} T{} packed{}", s.batch, s.tokens, sums ? " sums" : ""), inputs,
           [attrs](Graph& g, Values v) -> Outputs {
             const NodeId n = g.emit_node(attention_grad_op, v, attrs);
             return {g.outputs(n).begin(), g.outputs(n).end()};
           }});
    }
  }
}

// Between the sublayers of BERT-base on passages, of BERT-large, and of ViT-B/16 without dropout.
void add_residual_norms(std::vector<Case>& cases) {
  struct Size {
    int64_t rows, hidden;
    double p;
  };
  for (const Size s : {Size{12288, 768, 0.1}, Size{12288, 768, 0}, Size{4096, 768, 0.1},
                       Size{12288, 1024, 0.1}, Size{25216, 768, 0}}) {
    const Shape shape{s.rows, s.hidden};
    cases.push_back({&residual_norm_op,
                     fmt::format("large {}x{} p {}", s.rows, s.hidden, s.p),
                     {{.shape = shape},
                      {.shape = shape},
                      {.shape = {s.hidden}},
                      {.shape = {s.hidden}},
                      {.shape = {2}, .fill = Fill::rng}},
                     [p = s.p](Graph& g, Values v) -> Outputs {
                       const ResidualNormAttrs attrs{.dropout = {.p = p, .key = 3}};
                       return {residual_norm(g, v[0], v[1], v[2], v[3], attrs, v[4]).normed};
                     }});
  }
}

void add_rows(std::vector<Case>& cases) {
  cases.push_back(
      {&layer_norm_op,
       "large 25216x768",
       {{.shape = {25216, 768}}, {.shape = {768}}, {.shape = {768}}},
       [](Graph& g, Values v) -> Outputs { return {layer_norm(g, v[0], v[1], v[2], 1e-12)}; }});
  cases.push_back(
      {&softmax_op,
       "large 75648x197",
       {{.shape = {32, 12, 197, 197}}},
       [](Graph& g, Values v) -> Outputs { return {softmax(g, v[0], {.scale = 0.125})}; }});
  cases.push_back({&softmax_op,
                   "large 24576x1024",
                   {{.shape = {24576, 1024}}},
                   [](Graph& g, Values v) -> Outputs { return {softmax(g, v[0])}; }});
}

void add_pointwise(std::vector<Case>& cases) {
  const Shape wide{8192, 3072};
  cases.push_back(
      {&gelu_op, "large 8192x3072", {{.shape = wide}}, [](Graph& g, Values v) -> Outputs {
         return {activation(g, v[0], Activation::gelu)};
       }});
  cases.push_back({&add_op,
                   "large 8192x3072",
                   {{.shape = wide}, {.shape = wide}},
                   [](Graph& g, Values v) -> Outputs { return {add(g, v[0], v[1])}; }});
  cases.push_back({&dropout_op,
                   "large 8192x3072",
                   {{.shape = wide}, {.shape = {2}, .fill = Fill::rng}},
                   [](Graph& g, Values v) -> Outputs {
                     return {dropout(g, v[0], v[1], {.p = 0.1, .key = 11})};
                   }});
  cases.push_back({&dropout_op,
                   "large 32x12x384x384 of 8 bits",
                   {{.shape = {32, 12, 384, 384}}, {.shape = {2}, .fill = Fill::rng}},
                   [](Graph& g, Values v) -> Outputs {
                     return {dropout(g, v[0], v[1], {.p = 0.1, .key = 11, .bits = 8})};
                   }});
}

void add_updates(std::vector<Case>& cases) {
  const Shape weights{16'777'216};
  cases.push_back({&adamw_op,
                   "large 16777216",
                   {{.shape = weights, .slot = true},
                    {.shape = weights},
                    {.shape = weights, .slot = true, .widened = true},
                    {.shape = weights, .fill = Fill::positive, .slot = true, .widened = true},
                    {.shape = {1}, .fill = Fill::ids, .limit = 1, .slot = true},
                    {.shape = {1}, .fill = Fill::positive, .follows_dtype = false}},
                   [](Graph& g, Values v) -> Outputs {
                     adamw(g, {v[0], v[1], v[2], v[3], v[4], v[5]}, {.weight_decay = 0.05});
                     return {};
                   }});
  // BERT-base's word embeddings by a batch of 32 x 128 tokens.
  const Shape table = {30522, 768};
  for (const bool rows : {false, true}) {
    cases.push_back({&adamw_op,
                     rows ? "large table by rows" : "large table",
                     {{.shape = {4096, 768}},
                      {.shape = {4096}, .fill = Fill::ids, .limit = 30522},
                      {.shape = table, .slot = true, .widened = true},
                      {.shape = table, .slot = true, .widened = true},
                      {.shape = table, .fill = Fill::positive, .slot = true, .widened = true},
                      {.shape = {1}, .fill = Fill::ids, .limit = 1, .slot = true},
                      {.shape = {1}, .fill = Fill::positive, .follows_dtype = false}},
                     [rows](Graph& g, Values v) -> Outputs {
                       const NodeId n =
                           g.emit_node(rows ? embedding_grad_rows_op : embedding_grad_op,
                                       v.first(2), EmbeddingAttrs{30522});
                       adamw(g,
                             {.weight = v[2],
                              .gradient = g.output(n, 0),
                              .m = v[3],
                              .v = v[4],
                              .step = v[5],
                              .lr = v[6],
                              .rows = rows ? g.output(n, 1) : kNoValue},
                             {.weight_decay = 0.05});
                       return {};
                     }});
  }
  // Four of BERT-base's blocks and its word embeddings, 51.8 million parameters, as one group.
  std::vector<Shape> shapes;
  for (int block = 0; block < 4; ++block) {
    shapes.insert(shapes.end(), 4, Shape{768, 768});
    shapes.insert(shapes.end(), 2, Shape{3072, 768});
    shapes.insert(shapes.end(), 9, Shape{768});
    shapes.push_back({3072});
  }
  shapes.push_back({30522, 768});
  std::vector<Input> inputs;
  std::vector<Input> gradients;
  for (const Shape& shape : shapes) {
    inputs.push_back({.shape = shape, .slot = true, .widened = true});
    inputs.push_back({.shape = shape});
    inputs.push_back({.shape = shape, .slot = true, .widened = true});
    inputs.push_back({.shape = shape, .fill = Fill::positive, .slot = true, .widened = true});
    inputs.push_back({.shape = {1}, .fill = Fill::ids, .limit = 1, .slot = true});
    inputs.push_back({.shape = shape, .slot = true});
    gradients.push_back({.shape = shape});
  }
  inputs.push_back({.shape = {1}, .fill = Fill::positive, .follows_dtype = false});
  struct Measured {
    std::string_view name;
    UpdateMeasures measures;
  };
  for (const auto& [name, measures] :
       {Measured{"", {}}, Measured{" and squares", {.squares = true}},
        Measured{" and change", {.squares = true, .change = ChangeMetric::guarded}}}) {
    cases.push_back({&adamw_op, fmt::format("large group of {}{}", shapes.size(), name), inputs,
                     [m = measures](Graph& g, Values v) -> Outputs {
                       Outputs out;
                       for (size_t i = 0; i + 1 < v.size(); i += 6) {
                         const bool has_copy = dtype_bits(g.dtype(v[i + 5])) == 16;
                         const UpdateOut updated = adamw(g,
                                                         {.weight = v[i],
                                                          .gradient = v[i + 1],
                                                          .m = v[i + 2],
                                                          .v = v[i + 3],
                                                          .step = v[i + 4],
                                                          .lr = v.back(),
                                                          .copy = has_copy ? v[i + 5] : kNoValue},
                                                         {.weight_decay = 0.05, .measures = m});
                         if (updated.squares != kNoValue) {
                           out.push_back(updated.squares);
                         }
                       }
                       return out;
                     }});
  }
  cases.push_back({&sum_squares_op, fmt::format("large group of {}", shapes.size()), gradients,
                   [](Graph& g, Values v) -> Outputs {
                     Outputs out;
                     for (const ValueId x : v) {
                       out.push_back(sum_squares(g, x));
                     }
                     return out;
                   }});
}

// BERT-base's three tables; "forward and backward" less "forward" is the gradient.
void add_embeddings(std::vector<Case>& cases) {
  for (const int64_t tokens : {128, 384}) {
    for (const int64_t vocabulary : {30522, 512, 2}) {
      const Shape ids{32, tokens};
      cases.push_back(
          {&embedding_op,
           fmt::format("large V{} H768 ids {}", vocabulary, ids),
           {{.shape = {vocabulary, 768}}, {.shape = ids, .fill = Fill::ids, .limit = vocabulary}},
           [](Graph& g, Values v) -> Outputs { return {embedding(g, v[0], v[1])}; }});
    }
  }
}

}  // namespace

std::vector<Case> large_perf_cases() {
  std::vector<Case> cases;
  add_products(cases);
  add_attention(cases);
  add_bias_sums(cases);
  add_residual_norms(cases);
  add_rows(cases);
  add_pointwise(cases);
  add_updates(cases);
  add_embeddings(cases);
  add_codec_perf_cases(cases);
  return cases;
}

}  // namespace lithe::registry
