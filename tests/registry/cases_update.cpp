// Optimizer updates, gradient accumulation and clipping. Moments and velocities are fp32 beside
// 16-bit weights, the learning rate always is.
#include "registry/registry.h"
#include "tensor/ops/moment_codes.h"
#include "tensor/ops/update.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

const std::vector<Shape> kShapes = {{1},       {},        {7},       {0},     {33},
                                    {4, 1024}, {3, 5, 7}, {1, 1, 9}, {20011}, {2, 8192}};

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

// The same with moments in 8 bits.
std::vector<Input> coded_inputs(const Shape& shape) {
  std::vector<Input> inputs = update_inputs(shape);
  inputs[2] = {.shape = moment_codes_shape(shape.numel()), .fill = Fill::codes, .slot = true};
  inputs[3] = {.shape = moment_scales_shape(shape.numel()),
               .fill = Fill::positive,
               .slot = true,
               .follows_dtype = false};
  return inputs;
}

void add_coded_adamw(std::vector<Case>& cases, const Shape& shape) {
  struct Option {
    std::string_view name;
    AdamWAttrs attrs;
    bool scaled = false, copy = false;
  };
  const Option options[] = {
      {"", {.weight_decay = 0.1}},
      {" eps beside uncorrected root",
       {.eps = 1e-6, .weight_decay = 0.1, .epsilon = AdamEpsilon::uncorrected},
       true},
      {" with a copy", {.weight_decay = 0.1}, true, true},
      {" measured",
       {.weight_decay = 0.1,
        .measures = {.squares = true, .change = ChangeMetric::guarded, .floor = 0.25}}},
      {" no gradient", {.weight_decay = 0.1, .no_gradient = true}}};
  for (const auto& [name, attrs, scaled, copy] : options) {
    std::vector<Input> inputs = coded_inputs(shape);
    if (copy) {
      inputs[0].widened = true;
      inputs.push_back({.shape = shape, .slot = true});
    }
    cases.push_back({.op = &adamw_op,
                     .name = fmt::format("{} in 8 bits{}", shape, name),
                     .inputs = inputs,
                     .build = [a = attrs, s = scaled, c = copy](Graph& g, Values v) -> Outputs {
                       const bool has_copy = c && dtype_bits(g.dtype(v[7])) == 16;
                       const UpdateOut out = adamw(g,
                                                   {.weight = v[0],
                                                    .gradient = a.no_gradient ? kNoValue : v[1],
                                                    .m = v[2],
                                                    .v = v[3],
                                                    .step = v[4],
                                                    .lr = v[5],
                                                    .grad_scale = s ? v[6] : kNoValue,
                                                    .copy = has_copy ? v[7] : kNoValue},
                                                   a);
                       Outputs outputs = outputs_of_last(g);
                       if (c && !has_copy) {
                         assign(g, v[7], out.weight);  // the same for the oracle
                       }
                       return outputs;
                     }});
  }
}

// Of tensors that were never updated and others: without a gradient the first stay as they are.
void add_idle(std::vector<Case>& cases, const Shape& shape) {
  for (const bool coded : {false, true}) {
    for (const bool never : {false, true}) {
      std::vector<Input> inputs = coded ? coded_inputs(shape) : update_inputs(shape);
      inputs[4].limit = never ? 1 : 9;
      const UpdateMeasures measures{.squares = true, .change = ChangeMetric::guarded};
      cases.push_back({.op = &adamw_op,
                       .name = fmt::format("{} idle{}{}", shape, coded ? " in 8 bits" : "",
                                           never ? ", never updated" : ""),
                       .inputs = inputs,
                       .build = [=](Graph& g, Values v) -> Outputs {
                         const UpdateOut out = adamw(
                             g,
                             {.weight = v[0],
                              .gradient = kNoValue,
                              .m = v[2],
                              .v = v[3],
                              .step = v[4],
                              .lr = v[5]},
                             {.weight_decay = 0.1, .no_gradient = true, .measures = measures});
                         return {out.squares, out.change};
                       }});
    }
  }
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

// What an update measures, as outputs; the slots are compared anyway.
Outputs measured(const UpdateOut& out) {
  Outputs outputs;
  for (const ValueId v : {out.squares, out.change}) {
    if (v != kNoValue) {
      outputs.push_back(v);
    }
  }
  return outputs;
}

void add_measured(std::vector<Case>& cases, const Shape& shape) {
  struct Option {
    std::string_view name;
    UpdateMeasures measures;
  };
  const Option options[] = {
      {"squares", {.squares = true}},
      {"guarded change", {.squares = true, .change = ChangeMetric::guarded, .floor = 0.25}},
      {"relative change", {.change = ChangeMetric::relative}},
      {"change of norms", {.squares = true, .change = ChangeMetric::norm_ratio}}};
  for (const auto& [name, measures] : options) {
    const std::string title = fmt::format("{} with {}", shape, name);
    cases.push_back({.op = &adamw_op,
                     .name = title,
                     .inputs = update_inputs(shape),
                     .build = [m = measures](Graph& g, Values v) -> Outputs {
                       return measured(adamw(g, {v[0], v[1], v[2], v[3], v[4], v[5], v[6]},
                                             {.weight_decay = 0.1, .measures = m}));
                     }});
    for (const double momentum : {0.0, 0.9}) {
      cases.push_back(
          {.op = &sgd_op,
           .name = fmt::format("{}, momentum {}", title, momentum),
           .inputs = update_inputs(shape),
           .build = [m = measures, momentum](Graph& g, Values v) -> Outputs {
             return measured(sgd(
                 g, {v[0], v[1], v[2], v[4], v[5], v[6]},
                 {.momentum = momentum, .weight_decay = 0.1, .nesterov = false, .measures = m}));
           }});
    }
  }
}

// Neighbours that a device may run as one: tensors of mixed sizes, some without decay. Of five
// inputs each: weight, gradient, two states, step; then the learning rate.
std::vector<Input> group_inputs(const std::vector<Shape>& shapes, bool wide_weights,
                                bool coded = false) {
  std::vector<Input> inputs;
  for (const Shape& shape : shapes) {
    // In 8 bits, as in a run, where tensors are large.
    std::vector<Input> of =
        coded && shape.numel() > 40 ? coded_inputs(shape) : update_inputs(shape);
    of[0].widened = wide_weights;
    inputs.insert(inputs.end(), of.begin(), of.begin() + 5);
  }
  inputs.push_back({.shape = {1}, .fill = Fill::positive, .follows_dtype = false});
  return inputs;
}

void add_update_groups(std::vector<Case>& cases, const std::string& name,
                       const std::vector<Shape>& shapes) {
  const size_t count = shapes.size();
  const UpdateMeasures measures{.squares = true, .change = ChangeMetric::guarded, .floor = 0.25};
  const auto decay = [](size_t i) { return i % 3 == 0 ? 0.0 : 0.1; };
  for (const bool wide : {false, true}) {
    for (const bool measure : {false, true}) {
      const std::string title = fmt::format("group of {}{}{}", name, wide ? ", wide weights" : "",
                                            measure ? ", measured" : "");
      const UpdateMeasures asked = measure ? measures : UpdateMeasures{};
      for (const bool coded : {false, true}) {
        cases.push_back(
            {.op = &adamw_op,
             .name = title + (coded ? ", the larger in 8 bits" : ""),
             .inputs = group_inputs(shapes, wide, coded),
             .build = [=](Graph& g, Values v) -> Outputs {
               Outputs out;
               for (size_t i = 0; i < count; ++i) {
                 const Values of = v.subspan(5 * i, 5);
                 // Some without a gradient, as frozen units are.
                 const bool idle = coded && i % 4 == 3;
                 const Outputs more = measured(
                     adamw(g, {of[0], idle ? kNoValue : of[1], of[2], of[3], of[4], v.back()},
                           {.weight_decay = decay(i), .no_gradient = idle, .measures = asked}));
                 out.insert(out.end(), more.begin(), more.end());
               }
               return out;
             }});
      }
      cases.push_back({.op = &sgd_op,
                       .name = title,
                       .inputs = group_inputs(shapes, wide),
                       .build = [=](Graph& g, Values v) -> Outputs {
                         Outputs out;
                         for (size_t i = 0; i < count; ++i) {
                           const Values of = v.subspan(5 * i, 5);
                           const Outputs more = measured(
                               sgd(g, {of[0], of[1], of[2], of[4], v.back()},
                                   {.momentum = 0.9, .weight_decay = decay(i), .measures = asked}));
                           out.insert(out.end(), more.begin(), more.end());
                         }
                         return out;
                       }});
    }
  }
}

// The same of what only writes slots or sums up.
void add_slot_groups(std::vector<Case>& cases, const std::string& name,
                     const std::vector<Shape>& shapes) {
  const size_t count = shapes.size();
  for (const bool wide : {false, true}) {
    std::vector<Input> pairs;
    for (const Shape& shape : shapes) {
      pairs.push_back({.shape = shape, .slot = true, .widened = wide});
      pairs.push_back({.shape = shape});
    }
    const std::string title = fmt::format("group of {}{}", name, wide ? ", into wide slots" : "");
    cases.push_back({.op = &accumulate_op,
                     .name = title,
                     .inputs = pairs,
                     .build = [=](Graph& g, Values v) -> Outputs {
                       for (size_t i = 0; i < count; ++i) {
                         accumulate(g, v[2 * i], v[2 * i + 1]);
                       }
                       return {};
                     }});
    cases.push_back({.op = &assign_op,
                     .name = title,
                     .inputs = pairs,
                     .build = [=](Graph& g, Values v) -> Outputs {
                       for (size_t i = 0; i < count; ++i) {
                         assign(g, v[2 * i], v[2 * i + 1]);
                       }
                       return {};
                     }});
  }
  std::vector<Input> gradients;
  for (const Shape& shape : shapes) {
    // Every other one in fp32, as gradients accumulated in fp32 are.
    gradients.push_back({.shape = shape, .widened = gradients.size() % 2 == 1});
  }
  cases.push_back({.op = &sum_squares_op,
                   .name = "group of " + name,
                   .inputs = gradients,
                   .build = [](Graph& g, Values v) -> Outputs {
                     Outputs out;
                     for (const ValueId x : v) {
                       out.push_back(sum_squares(g, x));
                     }
                     return out;
                   }});
}

}  // namespace

void add_update_cases(std::vector<Case>& cases) {
  for (const Shape& shape : kShapes) {
    add_adamw(cases, "", shape, {.weight_decay = 0.1}, false);
    add_adamw(cases, " eps beside uncorrected root", shape,
              {.eps = 1e-6, .weight_decay = 0.1, .epsilon = AdamEpsilon::uncorrected}, true);
    add_adamw_with_copy(cases, shape);
    add_coded_adamw(cases, shape);
    add_idle(cases, shape);
    add_measured(cases, shape);
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
  const std::vector<Shape> mixed = {{7}, {20011}, {0}, {3, 8192}, {1}};
  add_update_groups(cases, "mixed sizes", mixed);
  add_slot_groups(cases, "mixed sizes", mixed);
  // More than the smaller table of a launch holds, and for slots than any does.
  std::vector<Shape> many;
  for (int64_t i = 0; i < 160; ++i) {
    many.push_back({1 + i * 37 % 51});
  }
  many[40] = Shape{9001};
  add_slot_groups(cases, "160", many);
  many.resize(70);
  add_update_groups(cases, "70", many);
  for (int count : {1, 2, 5, 40, 300}) {
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
