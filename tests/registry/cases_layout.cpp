#include "registry/registry.h"
#include "tensor/ops/layout.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

void add_reshapes(std::vector<Case>& cases) {
  struct Pair {
    Shape from, to;
  };
  const Pair pairs[] = {{{}, {1}},           {{1}, {}},         {{6}, {2, 3}},
                        {{2, 3, 7}, {6, 7}}, {{35}, {5, 1, 7}}, {{2, 2, 2, 2, 2, 2}, {64}},
                        {{0, 3}, {3, 0}},    {{0}, {0, 5}},     {{4, 1, 3}, {1, 12}}};
  for (const Pair& p : pairs) {
    cases.push_back(
        {.op = &reshape_op,
         .name = fmt::format("{} to {}", p.from, p.to),
         .inputs = {{.shape = p.from}},
         .build = [to = p.to](Graph& g, Values in) -> Outputs { return {reshape(g, in[0], to)}; }});
  }
}

std::string digits(std::initializer_list<int> order) {
  std::string out;
  for (const int d : order) {
    out += static_cast<char>('0' + d);
  }
  return out;
}

void add_transposes(std::vector<Case>& cases) {
  struct Size {
    Shape shape;
    std::initializer_list<int> order;
  };
  static const Size kSizes[] = {
      {{3, 5}, {1, 0}},
      {{1, 7}, {1, 0}},              // nothing moves
      {{2, 3, 4, 5}, {0, 2, 1, 3}},  // [B, T, N, D] -> [B, N, T, D]
      {{2, 3, 4, 5}, {0, 2, 3, 1}},  // [B, C, H, W] -> [B, H, W, C]
      {{2, 3, 4, 5}, {0, 3, 1, 2}},  // and back
      {{2, 3, 4, 5}, {3, 2, 1, 0}},
      {{2, 3, 2, 3, 2, 3}, {5, 3, 1, 4, 2, 0}},
      {{2, 1, 3, 1}, {2, 3, 1, 0}},  // dimensions of 1 between
      {{33, 47}, {1, 0}},            // whole tiles and rests
      {{129, 200}, {1, 0}},          // several tiles
      {{2, 70, 3, 65}, {0, 2, 3, 1}},
      {{3, 50, 4, 32}, {0, 2, 1, 3}},
      {{0, 3}, {1, 0}},
      {{2, 0, 3}, {2, 0, 1}},
  };
  for (const Size& s : kSizes) {
    cases.push_back({.op = &transpose_op,
                     .name = fmt::format("{} by {}", s.shape, digits(s.order)),
                     .inputs = {{.shape = s.shape}},
                     // Not transpose(), which makes a view where it can.
                     .build = [&s](Graph& g, Values in) -> Outputs {
                       TransposeAttrs attrs;
                       for (const int d : s.order) {
                         attrs.order[static_cast<size_t>(attrs.rank++)] = static_cast<int8_t>(d);
                       }
                       return {g.emit(transpose_op, {in[0]}, attrs)};
                     }});
  }
}

void add_slices(std::vector<Case>& cases) {
  struct Size {
    Shape shape;
    int axis;
    int64_t begin, end;
  };
  const Size sizes[] = {
      {{5}, 0, 1, 4},          {{2}, 0, 1, 2},          {{3, 5}, 0, 0, 2},
      {{3, 5}, 1, 2, 5},       {{3, 5}, -1, 4, 5},      {{2, 7, 3}, 1, 0, 1},
      {{2, 7, 3}, 1, 3, 3},    {{0, 4}, 1, 1, 3},       {{2, 3, 2, 2, 3, 2}, 4, 1, 3},
      {{4, 50, 130}, 1, 0, 1}, {{40, 700}, 1, 17, 600}, {{4, 6000}, 0, 1, 4}};
  for (const Size& s : sizes) {
    const std::string name =
        fmt::format("{} axis {} from {} to {}", s.shape, s.axis, s.begin, s.end);
    cases.push_back({.op = &slice_op,
                     .name = name,
                     .inputs = {{.shape = s.shape}},
                     .build = [s](Graph& g, Values in) -> Outputs {
                       return {slice(g, in[0], s.axis, s.begin, s.end)};
                     }});
    const int axis = s.axis < 0 ? s.axis + s.shape.rank() : s.axis;
    Shape part = s.shape;
    part[axis] = s.end - s.begin;
    cases.push_back({.op = &slice_grad_op,
                     .name = name,
                     .inputs = {{.shape = part}},
                     .build = [s, axis](Graph& g, Values in) -> Outputs {
                       const SliceAttrs attrs{axis, s.begin, s.end, s.shape[axis]};
                       return {g.emit(slice_grad_op, {in[0]}, attrs)};
                     }});
  }
}

void add_concats(std::vector<Case>& cases) {
  struct Size {
    std::vector<Shape> parts;
    int axis;
  };
  const Size sizes[] = {{{{1}, {1}}, 0},
                        {{{3}, {4}, {5}}, 0},
                        {{{2, 3}, {2, 3}}, 0},
                        {{{2, 3}, {2, 1}}, 1},
                        {{{2, 1, 7}, {2, 9, 7}}, 1},  // class token and patches
                        {{{2, 3, 5}, {2, 3, 2}, {2, 3, 1}}, -1},
                        {{{0, 3}, {2, 3}}, 0},
                        {{{2, 0}, {2, 4}}, 1},
                        {{{0, 2}, {0, 2}}, 1},
                        {{{2, 1, 2, 1, 2, 3}, {2, 1, 2, 4, 2, 3}}, 3},
                        {{{6, 1, 333}, {6, 16, 333}}, 1}};
  for (const Size& s : sizes) {
    std::vector<Input> inputs;
    for (const Shape& part : s.parts) {
      inputs.push_back({.shape = part});
    }
    cases.push_back({.op = &concat_op,
                     .name = fmt::format("{} axis {}", fmt::join(s.parts, " "), s.axis),
                     .inputs = inputs,
                     .build = [axis = s.axis](Graph& g, Values in) -> Outputs {
                       return {concat(g, in, axis)};
                     }});
  }
}

}  // namespace

void add_layout_cases(std::vector<Case>& cases) {
  add_reshapes(cases);
  add_transposes(cases);
  add_slices(cases);
  add_concats(cases);
}

}  // namespace lithe::registry
