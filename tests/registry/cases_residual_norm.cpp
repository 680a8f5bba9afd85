#include "registry/registry.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/residual_norm.h"

namespace lithe::registry {
namespace {

// Which inputs' gradients are wanted, and which of the two outputs a loss reads.
struct Use {
  const char* name = "";
  bool y = true;
  bool residual = true;
  bool gamma = true;
  bool beta = true;
  bool normed = true;
  bool sum = true;
};

constexpr Use kAll = {"all"};

struct Size {
  Shape shape;
  double p = 0.1;
  double eps = 1e-5;
};

// w normed + sum, so that different gradients arrive at both.
std::vector<ValueId> outputs(Graph& g, const ResidualNormOut& out, ValueId w, const Use& use) {
  if (!use.normed) {
    return {out.sum};
  }
  if (!use.sum) {
    return {out.normed};
  }
  return {add(g, mul(g, out.normed, w), out.sum), out.normed, out.sum};
}

void add(std::vector<Case>& cases, const Size& size, const Use& use) {
  const Shape parameter = {size.shape.back()};
  const ResidualNormAttrs attrs{.eps = size.eps,
                                .dropout = {.p = size.p, .key = 0x1234567890abcdefull}};
  // Over one element normed is constant: no gradient passes it, only rounding noise.
  const bool constant = size.shape.back() == 1 && !use.sum;
  cases.push_back({.op = &residual_norm_op,
                   .name = fmt::format("{} p {} eps {} {}", size.shape, size.p, size.eps, use.name),
                   .inputs = {{.shape = size.shape, .differentiable = use.y && !constant},
                              {.shape = size.shape, .differentiable = use.residual && !constant},
                              {.shape = parameter, .differentiable = use.gamma && use.normed},
                              {.shape = parameter, .differentiable = use.beta && use.normed},
                              {.shape = {2}, .fill = Fill::rng},
                              {.shape = size.shape, .differentiable = false}},
                   .build = [attrs, use](Graph& g, std::span<const ValueId> in) {
                     return outputs(g, residual_norm(g, in[0], in[1], in[2], in[3], attrs, in[4]),
                                    in[5], use);
                   }});
}

// y comes from a linear layer, whose bias's gradient residual_norm_grad sums. `use.y` is of the
// layer's parameters; `again`: y has another reader.
void add_after_linear(std::vector<Case>& cases, const Size& size, const Use& use,
                      bool again = false) {
  constexpr int64_t kIn = 3;
  const int64_t width = size.shape.back();
  Shape x = size.shape;
  x[x.rank() - 1] = kIn;
  const ResidualNormAttrs attrs{.eps = size.eps, .dropout = {.p = size.p, .key = 0x5ee1ull}};
  cases.push_back({.op = &residual_norm_op,
                   .name = fmt::format("{} p {} after a linear layer, {}{}", size.shape, size.p,
                                       use.name, again ? ", y read again" : ""),
                   .inputs = {{.shape = x, .differentiable = false},
                              {.shape = {width, kIn}, .differentiable = use.y},
                              {.shape = {width}, .differentiable = use.y},
                              {.shape = size.shape, .differentiable = use.residual},
                              {.shape = {width}, .differentiable = use.gamma && use.normed},
                              {.shape = {width}, .differentiable = use.beta && use.normed},
                              {.shape = {2}, .fill = Fill::rng},
                              {.shape = size.shape, .differentiable = false}},
                   .build = [attrs, use, again](Graph& g, std::span<const ValueId> in) {
                     const ValueId y = linear(g, in[0], in[1], in[2]).y;
                     auto out = outputs(g, residual_norm(g, y, in[3], in[4], in[5], attrs, in[6]),
                                        in[7], use);
                     if (again) {
                       out[0] = add(g, out[0], y);
                     }
                     return out;
                   }});
}

}  // namespace

void add_residual_norm_cases(std::vector<Case>& cases) {
  const Size sizes[] = {
      {{7}},
      {{1, 7}, 0.5},
      {{5, 3}, 0, 1e-12},
      {{2, 3, 17}, 0.3},
      {{0, 4}},
      {{4, 0}},
      {{0, 64}},
      {{1, 64}},
      {{3, 64}, 0, 0.1},
      {{200, 5}, 0.25},
      {{131, 129}},
      {{2, 2, 2, 2, 2, 33}, 0.999, 1e-6},
      {{3, 1}, 0.1, 0.25},
      // Rows that a warp, several warps and several rows of a block share; those with a rest.
      {{67, 8}},
      {{5, 40}, 0.4},
      {{67, 384}, 0.2},
      {{19, 512}, 0},
      {{700, 768}},
      {{2300, 24}},
      {{9, 1000}},
      {{3, 1024}, 0},
      {{5, 1032}},
      {{300, 1536}},
      {{3, 4096}, 0.05},
      {{2, 5000}},
      {{3, 8192}},
      {{2, 8200}},
      {{2, 4099}},
  };
  for (const Size& s : sizes) {
    add(cases, s, kAll);
  }
  const Use uses[] = {
      {.name = "normed", .sum = false},
      {.name = "sum", .normed = false},
      {.name = "y", .residual = false, .gamma = false, .beta = false},
      {.name = "residual", .y = false, .gamma = false, .beta = false},
      {.name = "y residual", .gamma = false, .beta = false},
      {.name = "y gamma", .residual = false, .beta = false},
      {.name = "residual gamma beta", .y = false},
      {.name = "y residual beta", .gamma = false},
      {.name = "gamma beta", .y = false, .residual = false, .sum = false},
      {.name = "gamma", .y = false, .residual = false, .beta = false, .sum = false},
      {.name = "beta", .y = false, .residual = false, .gamma = false, .sum = false},
      {.name = "normed to y residual", .gamma = false, .beta = false, .sum = false},
      {.name = "normed to residual beta", .y = false, .gamma = false, .sum = false},
      {.name = "sum to y", .residual = false, .normed = false},
      {.name = "sum to residual", .y = false, .normed = false},
  };
  for (const Use& use : uses) {
    for (const double p : {0.0, 0.3}) {
      add(cases, {{67, 48}, p}, use);
      add(cases, {{33, 21}, p}, use);
    }
  }
  const Size after_linear[] = {
      {{7}},         {{1, 64}},         {{2, 3, 17}, 0.3}, {{131, 129}},
      {{0, 64}},     {{4, 0}},          {{67, 384}, 0.2},  {{19, 512}, 0},
      {{2300, 24}},  {{700, 768}},      {{700, 768}, 0},   {{9, 1000}},
      {{270, 1032}}, {{3, 4096}, 0.05}, {{3, 8192}, 0},    {{2, 8200}},
  };
  for (const Size& s : after_linear) {
    add_after_linear(cases, s, kAll);
  }
  const Use after_linear_uses[] = {
      kAll,
      {.name = "normed", .sum = false},
      {.name = "the layer", .residual = false, .gamma = false, .beta = false},
      {.name = "the layer, normed", .residual = false, .gamma = false, .beta = false, .sum = false},
      {.name = "the layer gamma", .residual = false, .beta = false},
      {.name = "the layer residual beta", .gamma = false},
      {.name = "residual gamma beta", .y = false},
  };
  for (const Use& use : after_linear_uses) {
    for (const double p : {0.0, 0.3}) {
      for (const bool again : {false, true}) {
        add_after_linear(cases, {{67, 48}, p}, use, again);
        add_after_linear(cases, {{133, 21}, p}, use, again);
      }
    }
  }
}

}  // namespace lithe::registry
