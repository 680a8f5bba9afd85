// Shapes that fill a GPU: ViT-B/16 at batch 128 (25216 rows of 768) and its like. Each touches more
// than the second-level cache holds, so that figures are of memory.
#include <cmath>

#include "registry/modes.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
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
}

}  // namespace

std::vector<Case> large_perf_cases() {
  std::vector<Case> cases;
  add_products(cases);
  add_attention(cases);
  add_rows(cases);
  add_pointwise(cases);
  add_updates(cases);
  return cases;
}

}  // namespace lithe::registry
