#include "registry/registry.h"
#include "tensor/ops/elementwise.h"
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

// The compared output is w normed + sum, so that different gradients arrive at both: w is another
// input.
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
                     const ResidualNormOut out =
                         residual_norm(g, in[0], in[1], in[2], in[3], attrs, in[4]);
                     if (!use.normed) {
                       return std::vector<ValueId>{out.sum};
                     }
                     if (!use.sum) {
                       return std::vector<ValueId>{out.normed};
                     }
                     const ValueId loss = add(g, mul(g, out.normed, in[5]), out.sum);
                     return std::vector<ValueId>{loss, out.normed, out.sum};
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
}

}  // namespace lithe::registry
