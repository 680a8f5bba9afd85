// Optimizer updates, gradient accumulation and clipping. Moments and velocities are fp32 beside
// 16-bit weights, the learning rate always is.
#include "registry/registry.h"
#include "tensor/ops/update.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

const std::vector<Shape> kShapes = {{1},       {},        {7},       {0},    {33},
                                    {4, 1024}, {3, 5, 7}, {1, 1, 9}, {20011}};

Outputs outputs_of_last(const Graph& g) {
  const auto outputs = g.outputs(g.last());
  return {outputs.begin(), outputs.end()};
}

// Weight, gradient, two states, step (0 to 8 updates done before), lr, scale.
std::vector<Input> update_inputs(const Shape& shape) {
  return {{.shape = shape, .slot = true},
          {.shape = shape},
          {.shape = shape, .slot = true, .widened = true},
          {.shape = shape, .fill = Fill::positive, .slot = true, .widened = true},
          {.shape = {1}, .fill = Fill::ids, .limit = 9, .slot = true},
          {.shape = {1}, .fill = Fill::positive, .follows_dtype = false},
          {.shape = {1}, .fill = Fill::positive, .follows_dtype = false}};
}

void add_adamw(std::vector<Case>& cases, const std::string& option, const Shape& shape,
               const AdamWAttrs& attrs, bool scaled) {
  cases.push_back({.op = &adamw_op,
                   .name = to_string(shape) + option,
                   .inputs = update_inputs(shape),
                   .build = [=](Graph& g, Values v) -> Outputs {
                     adamw(g,
                           {.weight = v[0],
                            .gradient = v[1],
                            .m = v[2],
                            .v = v[3],
                            .step = v[4],
                            .lr = v[5],
                            .grad_scale = scaled ? v[6] : kNoValue},
                           attrs);
                     return outputs_of_last(g);
                   }});
}

void add_sgd(std::vector<Case>& cases, const std::string& option, const Shape& shape,
             const SgdAttrs& attrs, bool scaled) {
  cases.push_back({.op = &sgd_op,
                   .name = to_string(shape) + option,
                   .inputs = update_inputs(shape),
                   .build = [=](Graph& g, Values v) -> Outputs {
                     sgd(g,
                         {.weight = v[0],
                          .gradient = v[1],
                          .velocity = v[2],
                          .step = v[4],
                          .lr = v[5],
                          .grad_scale = scaled ? v[6] : kNoValue},
                         attrs);
                     return outputs_of_last(g);
                   }});
}

// An fp32 weight whose copy the step computes with; in 32 and 64 bits the copy is a node of its
// own.
void add_adamw_with_copy(std::vector<Case>& cases, const Shape& shape) {
  std::vector<Input> inputs = update_inputs(shape);
  inputs[0].widened = true;
  inputs.push_back({.shape = shape, .slot = true});
  cases.push_back({.op = &adamw_op,
                   .name = to_string(shape) + " with a copy",
                   .inputs = inputs,
                   .build = [=](Graph& g, Values v) -> Outputs {
                     const bool has_copy = dtype_bits(g.dtype(v[7])) == 16;
                     adamw(g,
                           {.weight = v[0],
                            .gradient = v[1],
                            .m = v[2],
                            .v = v[3],
                            .step = v[4],
                            .lr = v[5],
                            .grad_scale = v[6],
                            .copy = has_copy ? v[7] : kNoValue},
                           {.weight_decay = 0.1});
                     const Outputs outputs = outputs_of_last(g);
                     if (!has_copy) {
                       assign(g, v[7], outputs[0]);  // the same for the oracle
                     }
                     return outputs;
                   }});
}

}  // namespace

void add_update_cases(std::vector<Case>& cases) {
  for (const Shape& shape : kShapes) {
    add_adamw(cases, "", shape, {.weight_decay = 0.1}, false);
    add_adamw(cases, " eps beside uncorrected root", shape,
              {.eps = 1e-6, .weight_decay = 0.1, .epsilon = AdamEpsilon::uncorrected}, true);
    add_adamw_with_copy(cases, shape);
    add_sgd(cases, "", shape, {.weight_decay = 0.1}, true);
    add_sgd(cases, " momentum", shape, {.momentum = 0.9, .weight_decay = 0.1}, false);
    add_sgd(cases, " nesterov", shape, {.momentum = 0.9, .nesterov = true}, true);
    cases.push_back(
        {.op = &accumulate_op,
         .name = to_string(shape),
         .inputs = {{.shape = shape, .slot = true}, {.shape = shape}},
         .build = [](Graph& g, Values v) -> Outputs { return {accumulate(g, v[0], v[1])}; }});
    cases.push_back(
        {.op = &accumulate_op,
         .name = to_string(shape) + " in fp32",
         .inputs = {{.shape = shape, .slot = true, .widened = true}, {.shape = shape}},
         .build = [](Graph& g, Values v) -> Outputs { return {accumulate(g, v[0], v[1])}; }});
    cases.push_back({.op = &assign_op,
                     .name = to_string(shape),
                     .inputs = {{.shape = shape, .slot = true}, {.shape = shape, .widened = true}},
                     .build = [](Graph& g, Values v) -> Outputs {
                       assign(g, v[0], v[1]);
                       return outputs_of_last(g);
                     }});
    cases.push_back({.op = &clear_op,
                     .name = to_string(shape),
                     .inputs = {{.shape = shape, .slot = true}},
                     .build = [](Graph& g, Values v) -> Outputs {
                       clear(g, v[0]);
                       return outputs_of_last(g);
                     }});
    cases.push_back(
        {.op = &sum_squares_op,
         .name = to_string(shape),
         .inputs = {{.shape = shape}},
         .build = [](Graph& g, Values v) -> Outputs { return {sum_squares(g, v[0])}; }});
  }
  for (int count : {1, 2, 5, 40}) {
    for (double max_norm : {0.5, 100.0}) {
      const Input sum{.shape = {1}, .fill = Fill::positive, .widened = true};
      cases.push_back({.op = &clip_factor_op,
                       .name = fmt::format("{} sums, at most {}", count, max_norm),
                       .inputs = std::vector<Input>(static_cast<size_t>(count), sum),
                       .build = [=](Graph& g, Values v) -> Outputs {
                         const ClipOut out = clip_factor(g, v, max_norm);
                         return {out.norm, out.factor};
                       }});
    }
  }
}

}  // namespace lithe::registry
