// Shapes as they occur in training steps: a ViT of hidden 128 with 50 tokens and batch 128 (6400
// rows), BERT-base, an ImageNet patch embedding, optimizer updates over large tensors.
#include <cmath>

#include "registry/modes.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/moment_codes.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/update.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

void add_products(std::vector<Case>& cases) {
  struct Size {
    int64_t rows, in, out;
  };
  for (const Size s :
       {Size{6400, 128, 512}, Size{6400, 512, 128}, Size{6400, 128, 128}, Size{512, 768, 3072}}) {
    const std::string name = fmt::format("{}x{}x{}", s.rows, s.in, s.out);
    const std::vector<Input> inputs = {
        {.shape = {s.rows, s.in}}, {.shape = {s.out, s.in}}, {.shape = {s.out}}};
    cases.push_back({&linear_op, "perf " + name, inputs, [](Graph& g, Values v) -> Outputs {
                       return {linear(g, v[0], v[1], v[2]).y};
                     }});
    cases.push_back({&linear_op, "perf gelu " + name, inputs, [](Graph& g, Values v) -> Outputs {
                       return {linear(g, v[0], v[1], v[2], Activation::gelu).y};
                     }});
    cases.push_back({&matmul_op,
                     "perf " + name,
                     {{.shape = {s.rows, s.in}}, {.shape = {s.in, s.out}}},
                     [](Graph& g, Values v) -> Outputs { return {matmul(g, v[0], v[1])}; }});
  }
}

void add_attention(std::vector<Case>& cases) {
  struct Size {
    int64_t batch, tokens, heads, dim;
  };
  for (const Size s : {Size{128, 50, 4, 32}, Size{8, 128, 12, 64}, Size{2, 512, 12, 64}}) {
    const Shape shape{s.batch, s.tokens, s.heads, s.dim};
    cases.push_back({&attention_op,
                     fmt::format("perf B{} T{} N{} D{}", s.batch, s.tokens, s.heads, s.dim),
                     {{.shape = shape}, {.shape = shape}, {.shape = shape}},
                     [dim = s.dim](Graph& g, Values v) -> Outputs {
                       const AttentionAttrs attrs{.scale = 1 / std::sqrt(static_cast<double>(dim))};
                       return {attention(g, v[0], v[1], v[2], attrs)};
                     }});
  }
}

void add_rows(std::vector<Case>& cases) {
  const Shape rows{6400, 128};
  const Shape wide{6400, 512};
  cases.push_back(
      {&layer_norm_op,
       "perf 6400x128",
       {{.shape = rows}, {.shape = {128}}, {.shape = {128}}},
       [](Graph& g, Values v) -> Outputs { return {layer_norm(g, v[0], v[1], v[2], 1e-12)}; }});
  cases.push_back(
      {&softmax_op, "perf 25600x50", {{.shape = {25600, 50}}}, [](Graph& g, Values v) -> Outputs {
         return {softmax(g, v[0])};
       }});
  cases.push_back({&gelu_op, "perf 6400x512", {{.shape = wide}}, [](Graph& g, Values v) -> Outputs {
                     return {activation(g, v[0], Activation::gelu)};
                   }});
  cases.push_back({&add_op,
                   "perf 6400x512",
                   {{.shape = wide}, {.shape = wide}},
                   [](Graph& g, Values v) -> Outputs { return {add(g, v[0], v[1])}; }});
  cases.push_back({&dropout_op,
                   "perf 6400x512",
                   {{.shape = wide}, {.shape = {2}, .fill = Fill::rng}},
                   [](Graph& g, Values v) -> Outputs {
                     return {dropout(g, v[0], v[1], {.p = 0.1, .key = 11})};
                   }});
  cases.push_back({&cross_entropy_op,
                   "perf 512x30522",
                   {{.shape = {512, 30522}}, {.shape = {512}, .fill = Fill::ids, .limit = 30522}},
                   [](Graph& g, Values v) -> Outputs { return {cross_entropy(g, v[0], v[1])}; }});
}

void add_images(std::vector<Case>& cases) {
  const auto conv = [&](std::string name, const Shape& x, const Shape& w, const ConvAttrs& attrs) {
    cases.push_back(
        {&conv2d_op,
         std::move(name),
         {{.shape = x}, {.shape = w}, {.shape = {w[0]}}},
         [attrs](Graph& g, Values v) -> Outputs { return {conv2d(g, v[0], v[1], v[2], attrs)}; }});
  };
  conv("perf patches 16x224x224x3 to 768", {16, 224, 224, 3}, {768, 16, 16, 3},
       {.stride_h = 16, .stride_w = 16});
  conv("perf 3x3 4x32x32x128 to 128", {4, 32, 32, 128}, {128, 3, 3, 128}, {.pad_h = 1, .pad_w = 1});
}

void add_updates(std::vector<Case>& cases) {
  for (const int64_t n : {int64_t{1'000'000}, int64_t{10'000'000}}) {
    cases.push_back({&adamw_op,
                     fmt::format("perf {}", n),
                     {{.shape = {n}, .slot = true},
                      {.shape = {n}},
                      {.shape = {n}, .slot = true, .widened = true},
                      {.shape = {n}, .fill = Fill::positive, .slot = true, .widened = true},
                      {.shape = {1}, .fill = Fill::ids, .limit = 1, .slot = true},
                      {.shape = {1}, .fill = Fill::positive, .follows_dtype = false}},
                     [](Graph& g, Values v) -> Outputs {
                       adamw(g, {v[0], v[1], v[2], v[3], v[4], v[5]}, {.weight_decay = 0.05});
                       return {};
                     }});
    Case coded = cases.back();
    coded.name += ", moments in 8 bits";
    coded.inputs[2] = {.shape = moment_codes_shape(n), .fill = Fill::codes, .slot = true};
    coded.inputs[3] = {.shape = moment_scales_shape(n),
                       .fill = Fill::positive,
                       .slot = true,
                       .follows_dtype = false};
    cases.push_back(coded);
  }
}

}  // namespace

std::vector<Case> perf_cases() {
  std::vector<Case> cases;
  add_products(cases);
  add_attention(cases);
  add_rows(cases);
  add_images(cases);
  add_updates(cases);
  return cases;
}

}  // namespace lithe::registry
