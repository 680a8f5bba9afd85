#include <array>
#include <string_view>

#include "registry/registry.h"
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
    LinearPackedDwAttrs attrs{3, 7, true};
  };
  for (const Size& s : {Size{{1}, 1, 1, {1, 1, true}},
                        Size{{5}, 3, 1},
                        Size{{4}, 7, 5},
                        Size{{4}, 7, 5, {3, 7, false}},
                        Size{{4}, 7, 5, {3, 5, true}},
                        Size{{2, 3}, 9, 17, {2, 3, true}},
                        Size{{2, 3}, 9, 17, {2, 2, false}},
                        Size{{0}, 6, 4},
                        Size{{3}, 0, 4, {2, 3, true}},
                        Size{{2, 8}, 24, 16},
                        Size{{129}, 33, 65},
                        Size{{129}, 33, 65, {3, 6, true}},
                        Size{{5}, 64, 6, {8, 255, false}},
                        Size{{5}, 64, 6, {4, 9, true}},
                        Size{{1000}, 1, 11, {3, 0, true}},
                        Size{{2, 500}, 64, 64},
                        Size{{2, 500}, 64, 64, {3, 7, false}},
                        Size{{2, 500}, 64, 64, {3, 5, true}},
                        Size{{2, 500}, 64, 128, {3, 3, true}},
                        Size{{2, 500}, 64, 128, {3, 6, false}},
                        Size{{2, 500}, 64, 64, {3, 0, true}},
                        Size{{272}, 256, 264},
                        Size{{272}, 256, 264, {3, 2, true}},
                        Size{{700}, 128, 128}}) {
    Shape dy = s.rows;
    dy.push_back(s.attrs.count * s.out);
    Shape x = s.rows;
    x.push_back(s.in);
    cases.push_back(
        {.op = &linear_packed_dw_op,
         .name = fmt::format("{} x {}, {}, weights {:#b}{}", s.attrs.count, dy, x, s.attrs.weights,
                             s.attrs.with_bias ? " bias" : ""),
         .inputs = {{.shape = dy, .differentiable = false}, {.shape = x, .differentiable = false}},
         .build = [attrs = s.attrs](Graph& g, std::span<const ValueId> in) {
           const std::array<ValueId, 2> operands = {in[0], attrs.weights == 0 ? kNoValue : in[1]};
           const NodeId n = g.emit_node(linear_packed_dw_op, operands, attrs);
           const auto outputs = g.outputs(n);
           return std::vector<ValueId>{outputs.begin(), outputs.end()};
         }});
  }
}

}  // namespace

// What is compared is linear_stack's gradient, so they have none themselves.
void add_linear_packed_cases(std::vector<Case>& cases) {
  add_dx(cases);
  add_dw(cases);
}

}  // namespace lithe::registry
