#include <utility>

#include "registry/registry.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"

namespace lithe::registry {
namespace {

void add_matmul(std::vector<Case>& cases) {
  struct Size {
    Shape a, b;
    MatmulAttrs attrs{};
  };
  const Size sizes[] = {
      {{1, 1}, {1, 1}},
      {{3, 5}, {5, 7}},
      {{3, 5}, {7, 5}, {.transpose_b = true}},
      {{5, 3}, {5, 7}, {.transpose_a = true}},
      {{5, 3}, {7, 5}, {true, true, -0.5}},
      {{1, 129}, {129, 1}, {.alpha = 0.125}},
      {{129, 1}, {1, 33}},
      {{2, 3, 4, 5}, {2, 3, 5, 6}},
      {{2, 3, 4, 5}, {2, 3, 6, 5}, {.transpose_b = true, .alpha = 2}},
      {{7, 5, 4}, {7, 5, 6}, {.transpose_a = true}},
      {{3, 4, 5}, {5, 6}},  // one matrix for all batches
      {{3, 4, 5}, {6, 5}, {.transpose_b = true, .alpha = 3}},
      {{3, 5, 4}, {5, 6}, {.transpose_a = true}},
      {{3, 5, 4}, {6, 5}, {.transpose_a = true, .transpose_b = true}},
      {{4, 5}, {3, 5, 6}},
      {{5, 4}, {3, 6, 5}, {true, true, 0.5}},
      {{0, 4}, {4, 3}},
      {{3, 0}, {0, 2}},  // an empty sum is zero
      {{2, 3, 0}, {2, 0, 4}},
      {{0, 3, 4}, {0, 4, 2}},
      {{70, 65}, {65, 90}},
      {{300, 17}, {17, 40}},
      // at most 8 along one dimension, with and without whole vectors along the other
      {{200, 2}, {200, 64}, {.transpose_a = true}},
      {{130, 1}, {130, 33}, {.transpose_a = true, .alpha = -0.5}},
      {{9, 8}, {9, 40}, {.transpose_a = true}},
      {{129, 5}, {129, 300}, {.transpose_a = true}},
      {{0, 3}, {0, 32}, {.transpose_a = true}},
      {{70, 1}, {1, 32}},
      {{3, 67, 2}, {2, 264}, {.alpha = 3}},
      {{5, 7}, {7, 45}},
      {{130, 8}, {8, 520}},
      {{0, 2}, {2, 32}},
      // an adapter of rank 8: x Aᵀ, dy B, dyᵀ (x Aᵀ), and (dy B)ᵀ x
      {{3, 40, 64}, {8, 64}, {.transpose_b = true}},
      {{3, 40, 96}, {96, 8}, {.alpha = 2}},
      {{120, 96}, {120, 8}, {.transpose_a = true, .alpha = 2}},
      {{120, 8}, {120, 64}, {.transpose_a = true}},
  };
  for (const Size& s : sizes) {
    cases.push_back(
        {.op = &matmul_op,
         .name = fmt::format("{}{} x {}{} alpha {}", s.a, s.attrs.transpose_a ? "T" : "", s.b,
                             s.attrs.transpose_b ? "T" : "", s.attrs.alpha),
         .inputs = {{.shape = s.a}, {.shape = s.b}},
         .build = [attrs = s.attrs](Graph& g, std::span<const ValueId> in) {
           return std::vector<ValueId>{matmul(g, in[0], in[1], attrs)};
         }});
  }
}

// y = alpha op(a) op(b) + addend; `chained` runs write over the addend.
void add_addend(std::vector<Case>& cases) {
  struct Size {
    Shape a, b, addend;
    MatmulAttrs attrs{};
  };
  const Size sizes[] = {
      {{1, 1}, {1, 1}, {1, 1}},
      {{3, 5}, {5, 7}, {3, 7}},
      {{5, 3}, {7, 5}, {3, 7}, {true, true, -0.5}},
      {{2, 3, 4, 5}, {2, 3, 6, 5}, {2, 3, 4, 6}, {.transpose_b = true, .alpha = 2}},
      {{3, 4, 5}, {5, 6}, {3, 4, 6}},
      {{3, 5, 4}, {5, 6}, {3, 4, 6}, {.transpose_a = true}},
      {{4, 5}, {3, 5, 6}, {3, 4, 6}},
      {{0, 4}, {4, 3}, {0, 3}},
      {{3, 0}, {0, 2}, {3, 2}},  // an empty sum leaves the addend
      {{2, 3, 0}, {2, 0, 4}, {2, 3, 4}},
      {{70, 65}, {65, 90}, {70, 90}},
      {{264, 256}, {256, 272}, {264, 272}},  // large enough to be measured
      // an adapter of rank 8 onto its base's product, and onto the base's dx
      {{3, 40, 8}, {96, 8}, {3, 40, 96}, {.transpose_b = true, .alpha = 2}},
      {{3, 40, 8}, {8, 64}, {3, 40, 64}},
  };
  for (const Size& s : sizes) {
    cases.push_back(
        {.op = &matmul_op,
         .name = fmt::format("{}{} x {}{} alpha {} + {}", s.a, s.attrs.transpose_a ? "T" : "", s.b,
                             s.attrs.transpose_b ? "T" : "", s.attrs.alpha, s.addend),
         .inputs = {{.shape = s.a}, {.shape = s.b}, {.shape = s.addend}},
         .build = [attrs = s.attrs](Graph& g, std::span<const ValueId> in) {
           return std::vector<ValueId>{matmul(g, in[0], in[1], attrs, in[2])};
         }});
  }
  // An addend that is an operand too must not be written over.
  cases.push_back({.op = &matmul_op,
                   .name = "x y + x",
                   .inputs = {{.shape = {9, 9}}, {.shape = {9, 9}}},
                   .build = [](Graph& g, std::span<const ValueId> in) {
                     return std::vector<ValueId>{matmul(g, in[0], in[1], {}, in[0])};
                   }});
}

void add_linear(std::vector<Case>& cases) {
  struct Size {
    Shape x;
    int64_t out = 1;
    bool bias = true;
    Activation activation = Activation::none;
  };
  const Size sizes[] = {
      {{1}, 1},
      {{5}, 3, true, Activation::gelu},  // a single row without a batch
      {{1, 1}, 1, false},
      {{4, 7}, 5},
      {{4, 7}, 5, false},
      {{2, 3, 9}, 17, true, Activation::gelu},
      {{2, 3, 9}, 17, false, Activation::gelu},
      {{3, 5}, 33, true, Activation::gelu_tanh},
      {{2, 3, 16}, 24, true, Activation::gelu_tanh},  // rows that a fused GELU can keep
      {{264, 256}, 272, true, Activation::gelu_tanh},
      {{2, 3, 9}, 16, false, Activation::gelu_tanh},
      {{3, 5}, 33, true, Activation::quick_gelu},
      {{3, 5}, 33, true, Activation::silu},
      {{3, 5}, 33, true, Activation::tanh},
      {{3, 5}, 33, true, Activation::sigmoid},
      {{0, 6}, 4, true, Activation::gelu},
      {{3, 0}, 4},  // an empty sum leaves the bias
      {{3, 0}, 4, true, Activation::silu},
      {{2, 2, 2, 2, 3}, 2},
      {{600, 11}, 9, true, Activation::gelu},  // several tiles of rows
      {{5, 3}, 1100, true, Activation::silu},  // and of columns
      {{270, 40}, 530},
  };
  for (const Size& s : sizes) {
    std::vector<Input> inputs = {{.shape = s.x}, {.shape = {s.out, s.x.back()}}};
    if (s.bias) {
      inputs.push_back({.shape = {s.out}});
    }
    cases.push_back({.op = &linear_op,
                     .name = fmt::format("{} -> {}{} activation {}", s.x, s.out,
                                         s.bias ? " bias" : "", static_cast<int>(s.activation)),
                     .inputs = inputs,
                     .build = [kind = s.activation](Graph& g, std::span<const ValueId> in) {
                       const LinearOut out =
                           linear(g, in[0], in[1], in.size() > 2 ? in[2] : kNoValue, kind);
                       std::vector<ValueId> outputs = {out.y};
                       if (out.pre_activation != kNoValue) {
                         outputs.push_back(out.pre_activation);
                       }
                       return outputs;
                     }});
  }
}

// No weight moves these numbers near relu's kink: each output is one input times a positive weight.
void add_linear_relu(std::vector<Case>& cases) {
  for (const int64_t rows : {1, 6}) {
    cases.push_back({.op = &linear_op,
                     .name = fmt::format("{} x 1 -> 5 relu", rows),
                     .inputs = {{.shape = {rows, 1}, .fill = Fill::apart},
                                {.shape = {5, 1}, .fill = Fill::positive}},
                     .build = [](Graph& g, std::span<const ValueId> in) {
                       return std::vector<ValueId>{
                           linear(g, in[0], in[1], kNoValue, Activation::relu).y};
                     }});
  }
}

// Differentiated are the sum of all layers, and each layer without the others.
void add_linear_stack(std::vector<Case>& cases) {
  struct Size {
    Shape x;
    int64_t out = 1;
    size_t count = 3;
    bool bias = true;
  };
  for (const Size& s :
       {Size{{1}, 1, 1}, Size{{5}, 3, 2}, Size{{1, 1}, 1, 3, false}, Size{{4, 7}, 5},
        Size{{4, 7}, 5, 3, false}, Size{{2, 3, 9}, 17, 2}, Size{{0, 6}, 4, 2}, Size{{3, 0}, 4, 2},
        Size{{16, 24}, 8}, Size{{2, 64, 64}, 64}, Size{{256, 128}, 256}, Size{{5, 6}, 64, 8}}) {
    for (size_t one = 0; one <= s.count; ++one) {
      const bool all = one == s.count;
      std::vector<Input> inputs = {{.shape = s.x}};
      for (size_t i = 0; i < s.count; ++i) {
        inputs.push_back({.shape = {s.out, s.x.back()}, .differentiable = all || i == one});
      }
      for (size_t i = 0; s.bias && i < s.count; ++i) {
        inputs.push_back({.shape = {s.out}, .differentiable = all || i == one});
      }
      cases.push_back(
          {.op = &linear_stack_op,
           .name = fmt::format("{} -> {} x {}{}, {}", s.x, s.count, s.out, s.bias ? " bias" : "",
                               all ? "all" : fmt::format("layer {}", one)),
           .inputs = inputs,
           .build = [count = s.count, one, all](Graph& g, std::span<const ValueId> in) {
             std::vector<ValueId> y =
                 linear_stack(g, in[0], in.subspan(1, count), in.subspan(1 + count));
             ValueId first = y[all ? 0 : one];
             for (size_t i = 1; all && i < count; ++i) {
               first = add(g, first, y[i]);
             }
             if (all && count > 1) {
               y.insert(y.begin(), first);
             } else {
               std::swap(y[0], y[all ? 0 : one]);
             }
             return y;
           }});
    }
  }
}

// bias_grad has no gradient itself, so it is compared only.
void add_bias_grad(std::vector<Case>& cases) {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{1, 1}, Shape{3, 5}, Shape{0, 4}, Shape{4, 0},
                             Shape{2, 3, 4, 5}, Shape{129, 3}, Shape{1000, 33}}) {
    cases.push_back({.op = &bias_grad_op,
                     .name = fmt::format("{}", shape),
                     .inputs = {{.shape = shape, .differentiable = false}},
                     .build = [](Graph& g, std::span<const ValueId> in) {
                       return std::vector<ValueId>{g.emit(bias_grad_op, {in[0]})};
                     }});
  }
}

// As bias_grad: what is compared is linear's gradient.
void add_linear_dw(std::vector<Case>& cases) {
  struct Size {
    Shape x;
    int64_t out = 1;
  };
  for (const Size& s :
       {Size{{1}, 1}, Size{{7}, 5}, Size{{1, 1}, 1}, Size{{4, 7}, 5}, Size{{2, 3, 9}, 17},
        Size{{0, 6}, 4}, Size{{3, 0}, 4}, Size{{3, 4}, 0}, Size{{16, 24}, 8}, Size{{2, 64, 40}, 32},
        Size{{129, 33}, 65}, Size{{1000, 8}, 2}, Size{{272, 256}, 264}, Size{{0, 40}, 3},
        Size{{40}, 2}, Size{{3, 50, 264}, 2}, Size{{130, 33}, 1}, Size{{700, 64}, 8},
        Size{{65, 45}, 5}}) {
    Shape dy = s.x;
    dy[dy.rank() - 1] = s.out;
    cases.push_back({.op = &linear_dw_op,
                     .name = fmt::format("{}, {}", dy, s.x),
                     .inputs = {{.shape = dy, .differentiable = false},
                                {.shape = s.x, .differentiable = false}},
                     .build = [](Graph& g, std::span<const ValueId> in) {
                       const NodeId n = g.emit_node(linear_dw_op, in);
                       return std::vector<ValueId>{g.output(n, 0), g.output(n, 1)};
                     }});
  }
}

// As bias_grad. The dys of a stack lie at one distance however the graph is placed; those that
// repeat themselves never do.
void add_linear_stack_dw(std::vector<Case>& cases) {
  struct Size {
    Shape x;
    int64_t out = 1;
    int count = 3;
    bool bias = true;
  };
  for (const Size& s : {Size{{1}, 1, 1},
                        Size{{5}, 3, 2},
                        Size{{1, 1}, 1, 3, false},
                        Size{{4, 7}, 5},
                        Size{{4, 7}, 5, 3, false},
                        Size{{2, 3, 9}, 17, 2},
                        Size{{0, 6}, 4, 2},
                        Size{{3, 0}, 4, 2},
                        Size{{3, 4}, 0, 2},
                        Size{{16, 24}, 8},
                        Size{{2, 64, 40}, 32, 2},
                        Size{{129, 33}, 65},
                        Size{{129, 33}, 65, 2, false},
                        Size{{5, 6}, 64, 8, false},
                        Size{{5, 6}, 64, 4},
                        Size{{200, 40}, 2, 2},
                        Size{{200, 40}, 2, 3, false},
                        Size{{272, 256}, 264},
                        Size{{272, 256}, 264, 2, false},
                        Size{{700, 128}, 128}}) {
    Shape dy = s.x;
    dy[dy.rank() - 1] = s.out;
    Shape source = s.x;
    source[source.rank() - 1] = 3;
    const auto count = static_cast<size_t>(s.count);
    for (const bool stacked : {false, true}) {
      std::vector<Input> inputs = {{.shape = s.x}, {.shape = dy}, {.shape = dy}};
      if (stacked) {
        inputs = {{.shape = s.x}, {.shape = source}, {.shape = {s.out, 3}}};
        inputs.resize(3 + count, {.shape = {s.out}});
      }
      for (Input& input : inputs) {
        input.differentiable = false;
      }
      const LinearStackDwAttrs attrs{s.count, s.bias};
      cases.push_back({.op = &linear_stack_dw_op,
                       .name = fmt::format("{} x {}, {}{}{}", s.count, dy, s.x,
                                           s.bias ? " bias" : "", stacked ? " stacked" : ""),
                       .inputs = inputs,
                       .build = [attrs, count, stacked](Graph& g, std::span<const ValueId> in) {
                         std::vector<ValueId> operands;
                         if (stacked) {
                           const std::vector<ValueId> weights(count, in[2]);
                           operands = linear_stack(g, in[1], weights, in.subspan(3));
                         }
                         while (operands.size() < count) {
                           operands.push_back(in[1 + operands.size() % 2]);
                         }
                         if (count == 2 && !stacked) {
                           operands[1] = operands[0];
                         }
                         operands.push_back(in[0]);
                         const NodeId n = g.emit_node(linear_stack_dw_op, operands, attrs);
                         const auto outputs = g.outputs(n);
                         return std::vector<ValueId>{outputs.begin(), outputs.end()};
                       }});
    }
  }
}

}  // namespace

void add_matmul_cases(std::vector<Case>& cases) {
  add_matmul(cases);
  add_addend(cases);
  add_linear(cases);
  add_linear_relu(cases);
  add_linear_stack(cases);
  add_bias_grad(cases);
  add_linear_dw(cases);
  add_linear_stack_dw(cases);
}

}  // namespace lithe::registry
