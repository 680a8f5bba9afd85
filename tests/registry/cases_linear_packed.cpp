#include <array>
#include <string_view>

#include "registry/registry.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/matmul.h"

namespace lithe::registry {
namespace {

// Slots lie one behind the other where their bytes are a multiple of the alignment; inputs of the
// arena, and one weight in every layer's place, do not.
enum class Weights { slots, inputs, repeated };

void add_dx(std::vector<Case>& cases) {
  struct Size {
    Shape rows;
    int64_t in, out;
    int count = 3;
  };
  for (const Size& s :
       {Size{{1}, 1, 1, 1}, Size{{5}, 3, 1}, Size{{4}, 7, 5}, Size{{2, 3}, 9, 17, 2},
        Size{{0}, 6, 4}, Size{{3}, 0, 4, 2}, Size{{2, 8}, 24, 16}, Size{{129}, 33, 65},
        Size{{5}, 64, 6, 8}, Size{{2, 40}, 64, 64}, Size{{70}, 128, 8, 4}, Size{{272}, 264, 256},
        Size{{512}, 128, 128}}) {
    for (const Weights weights : {Weights::slots, Weights::inputs, Weights::repeated}) {
      for (const bool adds : {false, true}) {
        Shape dy = s.rows;
        dy.push_back(s.count * s.out);
        Shape dx = s.rows;
        dx.push_back(s.in);
        std::vector<Input> inputs = {{.shape = dy, .differentiable = false},
                                     {.shape = dx, .differentiable = false}};
        const Input weight{
            .shape = {s.out, s.in}, .differentiable = false, .slot = weights == Weights::slots};
        const int given = weights == Weights::repeated ? 1 : s.count;
        inputs.resize(2 + static_cast<size_t>(given), weight);
        constexpr std::string_view kNames[] = {"slots", "inputs", "one"};
        cases.push_back(
            {.op = &linear_packed_dx_op,
             .name = fmt::format("{} x {} -> {}, {}{}", s.count, dy, dx,
                                 kNames[static_cast<size_t>(weights)], adds ? " added" : ""),
             .inputs = inputs,
             .build = [adds, count = s.count](Graph& g, std::span<const ValueId> in) {
               std::vector<ValueId> w(in.begin() + 2, in.end());
               w.resize(static_cast<size_t>(count), in[2]);
               const ValueId addend = adds ? in[1] : kNoValue;
               return std::vector<ValueId>{linear_packed_dx(g, in[0], w, addend)};
             }});
      }
    }
  }
}

void add_dw(std::vector<Case>& cases) {
  struct Size {
    Shape rows;
    int64_t in, out;
    LinearPackedDwAttrs attrs{3, 7};
  };
  for (const Size& s : {Size{{1}, 1, 1, {1, 1}},
                        Size{{5}, 3, 1},
                        Size{{4}, 7, 5},
                        Size{{4}, 7, 5, {3, 5}},
                        Size{{2, 3}, 9, 17, {2, 3}},
                        Size{{2, 3}, 9, 17, {2, 2}},
                        Size{{0}, 6, 4},
                        Size{{3}, 0, 4, {2, 3}},
                        Size{{2, 8}, 24, 16},
                        Size{{129}, 33, 65},
                        Size{{129}, 33, 65, {3, 6}},
                        Size{{5}, 64, 6, {8, 255}},
                        Size{{5}, 64, 6, {4, 9}},
                        Size{{2, 500}, 64, 64},
                        Size{{2, 500}, 64, 64, {3, 5}},
                        Size{{2, 500}, 64, 128, {3, 3}},
                        Size{{2, 500}, 64, 128, {3, 6}},
                        Size{{272}, 256, 264},
                        Size{{272}, 256, 264, {3, 2}},
                        Size{{700}, 128, 128}}) {
    Shape dy = s.rows;
    dy.push_back(s.attrs.count * s.out);
    Shape x = s.rows;
    x.push_back(s.in);
    cases.push_back(
        {.op = &linear_packed_dw_op,
         .name = fmt::format("{} x {}, {}, weights {:#b}", s.attrs.count, dy, x, s.attrs.weights),
         .inputs = {{.shape = dy, .differentiable = false}, {.shape = x, .differentiable = false}},
         .build = [attrs = s.attrs](Graph& g, std::span<const ValueId> in) {
           const NodeId n = g.emit_node(linear_packed_dw_op, in, attrs);
           const auto outputs = g.outputs(n);
           return std::vector<ValueId>{outputs.begin(), outputs.end()};
         }});
  }
}

// Self-attention, whose packed gradients bring those of the biases. These are multiples of one
// input: the key's has the gradient 0, and its rounding noise alone could not be compared.
void add_bias_sums(std::vector<Case>& cases) {
  struct Size {
    int64_t batch, tokens, heads, dim;
  };
  for (const Size& s : {Size{1, 1, 1, 1}, Size{2, 5, 2, 3}, Size{3, 7, 4, 8}, Size{0, 4, 2, 3},
                        Size{2, 70, 2, 64}, Size{1, 130, 3, 40}, Size{1, 65, 2, 80}}) {
    const int64_t hidden = s.heads * s.dim;
    // In slots, whose places do not depend on the plan: by them dx is one product or three.
    const Input weight{.shape = {hidden, 6}, .differentiable = false, .slot = true};
    cases.push_back(
        {.op = &linear_stack_op,
         .name = fmt::format("self-attention B{} T{} N{} D{}", s.batch, s.tokens, s.heads, s.dim),
         .inputs = {{.shape = {s.batch, s.tokens, 6}}, weight, weight, weight, {.shape = {hidden}}},
         .build = [s](Graph& g, std::span<const ValueId> in) {
           const std::array<ValueId, 3> biases = {in[4], scale(g, in[4], 2), scale(g, in[4], -3)};
           std::vector<ValueId> y = linear_stack(g, in[0], in.subspan(1, 3), biases);
           for (ValueId& v : y) {
             v = reshape(g, v, {s.batch, s.tokens, s.heads, s.dim});
           }
           return std::vector<ValueId>{attention(g, y[0], y[1], y[2], {.scale = 0.1})};
         }});
  }
}

}  // namespace

// What is compared is linear_stack's gradient, so they have none themselves.
void add_linear_packed_cases(std::vector<Case>& cases) {
  add_dx(cases);
  add_dw(cases);
  add_bias_sums(cases);
}

}  // namespace lithe::registry
