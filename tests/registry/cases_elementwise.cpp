#include "registry/registry.h"
#include "tensor/ops/elementwise.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

void add_binary(std::vector<Case>& cases) {
  struct Kind {
    ValueId (*emit)(Graph&, ValueId, ValueId);
    const OpDef* op;
  };
  const Kind kinds[] = {{add, &add_op}, {sub, &sub_op}, {mul, &mul_op}, {div, &div_op}};
  struct Pair {
    Shape a, b;
  };
  const Pair pairs[] = {
      {{}, {}},
      {{1}, {1}},
      {{3, 5}, {3, 5}},
      {{2, 3, 7}, {7}},        // a bias
      {{7}, {2, 3, 7}},        // the other way round
      {{2, 3, 7}, {3, 1}},     // one factor a row
      {{4, 1, 5}, {1, 3, 1}},  // both repeat
      {{3, 5}, {}},            // a scalar
      {{1, 1}, {17}},          //
      {{2, 1, 3, 1, 2}, {5, 1, 4, 1}},
      {{2, 1, 3, 1, 2, 1}, {1, 2, 1, 2, 1, 3}},
      {{0, 3}, {3}},        // empty
      {{2, 0}, {2, 1}},     //
      {{5, 4099}, {4099}},  // shared by threads in the middle of a row
      {{2, 37, 300}, {37, 1}},
  };
  for (const Kind& k : kinds) {
    for (const Pair& p : pairs) {
      const Fill fill = k.op == &div_op ? Fill::positive : Fill::normal;
      cases.push_back({.op = k.op,
                       .name = fmt::format("{} {}", p.a, p.b),
                       .inputs = {{.shape = p.a}, {.shape = p.b, .fill = fill}},
                       .build = [emit = k.emit](Graph& g, Values in) -> Outputs {
                         return {emit(g, in[0], in[1])};
                       }});
    }
  }
  // One value in both places must not be worked on in place.
  cases.push_back({.op = &mul_op,
                   .name = "[3, 5] by itself",
                   .inputs = {{.shape = {3, 5}}},
                   .build = [](Graph& g, Values in) -> Outputs { return {mul(g, in[0], in[0])}; }});
}

void add_unary(std::vector<Case>& cases) {
  const Shape shapes[] = {
      {}, {1}, {9}, {3, 5}, {2, 1, 33}, {0}, {4, 0, 2}, {3, 1, 1, 1, 1, 5}, {7, 2501}};
  for (const Shape& shape : shapes) {
    for (const double factor : {-2.5, 0.0}) {
      cases.push_back({.op = &scale_op,
                       .name = fmt::format("{} by {}", shape, factor),
                       .inputs = {{.shape = shape}},
                       .build = [factor](Graph& g, Values in) -> Outputs {
                         return {scale(g, in[0], factor)};
                       }});
    }
    // The input only tells the dtype.
    cases.push_back({.op = &fill_op,
                     .name = fmt::format("{}", shape),
                     .inputs = {{.shape = {1}}},
                     .build = [shape](Graph& g, Values in) -> Outputs {
                       return {fill(g, g.dtype(in[0]), shape, 0.375)};
                     }});
    // Differences of a narrower type show its steps, so the gradient is checked to fp64 only.
    for (const DType to : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
      cases.push_back({.op = &cast_op,
                       .name = fmt::format("{} to {}", shape, dtype_name(to)),
                       .inputs = {{.shape = shape, .differentiable = to == DType::f64}},
                       .build = [to](Graph& g, Values in) -> Outputs {
                         // Not cast(), which leaves out a conversion to the same type.
                         return {g.emit(cast_op, {in[0]}, CastAttrs{to})};
                       }});
    }
  }
}

}  // namespace

void add_elementwise_cases(std::vector<Case>& cases) {
  add_binary(cases);
  add_unary(cases);
}

}  // namespace lithe::registry
