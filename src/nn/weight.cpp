#include "nn/weight.h"

#include <algorithm>

#include "nn/site_key.h"
#include "tensor/graph/executor.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/op_table.h"

namespace lithe::nn {
namespace {

// f(y), where the product itself cannot fuse it.
LinearOut activated(Graph& g, ValueId y, Activation kind) {
  return kind == Activation::none ? LinearOut{.y = y}
                                  : LinearOut{.y = activation(g, y, kind), .pre_activation = y};
}

}  // namespace

ValueId LowRank::product(Graph& g, ValueId x, ValueId addend) const {
  const DType dtype = g.dtype(x);
  const ValueId rng = draws() ? random_input(g) : kNoValue;
  if (rng != kNoValue) {
    x = dropout(g, x, rng, {options_.dropout, options_.dropout_key});
  }
  const ValueId low = matmul(g, x, leaf_as(g, a_, dtype), {.transpose_b = true});
  return matmul(g, low, leaf_as(g, b_, dtype), {.transpose_b = true, .alpha = options_.scale},
                addend);
}

LinearOut LowRank::multiply(Graph& g, ValueId x, ValueId bias, Activation fused) const {
  const ValueId y = product(g, x, kNoValue);
  return activated(g, bias == kNoValue ? y : add(g, y, bias), fused);
}

ValueId LowRank::multiply_onto(Graph& g, ValueId x, ValueId y) const { return product(g, x, y); }

ValueId LowRank::dense(Graph& g) const {
  return matmul(g, g.leaf(b_), g.leaf(a_), {.alpha = options_.scale});
}

Sum::Sum(std::vector<std::unique_ptr<Weight>> terms) : terms_(std::move(terms)) {
  if (terms_.empty()) {
    throw ShapeError("weight", "a sum of no terms; give at least one");
  }
  for (const std::unique_ptr<Weight>& term : terms_) {
    if (term->shape() != shape()) {
      throw ShapeError("weight", "terms of shapes {} and {}; all of a sum must have one", shape(),
                       term->shape());
    }
  }
}

LinearOut Sum::multiply(Graph& g, ValueId x, ValueId bias, Activation fused) const {
  if (terms_.size() == 1) {
    return terms_.front()->multiply(g, x, bias, fused);
  }
  ValueId y = terms_.front()->multiply(g, x, bias, Activation::none).y;
  for (size_t i = 1; i < terms_.size(); ++i) {
    y = terms_[i]->multiply_onto(g, x, y);
  }
  return activated(g, y, fused);
}

ValueId Sum::dense(Graph& g) const {
  ValueId sum = terms_.front()->dense(g);
  for (size_t i = 1; i < terms_.size(); ++i) {
    sum = add(g, sum, terms_[i]->dense(g));
  }
  return sum;
}

std::vector<SlotId> Sum::slots() const {
  std::vector<SlotId> out;
  for (const std::unique_ptr<Weight>& term : terms_) {
    const std::vector<SlotId> more = term->slots();
    out.insert(out.end(), more.begin(), more.end());
  }
  return out;
}

bool Sum::draws() const {
  return std::any_of(terms_.begin(), terms_.end(), [](const auto& term) { return term->draws(); });
}

Tensor dense_value(const Weight& weight, const SlotTable& slots,
                   const std::function<Tensor(SlotId)>& get) {
  const std::vector<SlotId> needed = weight.slots();
  // A table in which all other slots are next to nothing: an executor holds every slot.
  SlotTable table;
  for (SlotId s = 0; s < slots.size(); ++s) {
    const bool take = std::find(needed.begin(), needed.end(), s) != needed.end();
    table.add({.name = slots[s].name,
               .dtype = take ? slots[s].dtype : DType::boolean,
               .shape = take ? slots[s].shape : Shape{1}});
  }
  Graph graph(table);
  const ValueId dense = weight.dense(graph);
  if (graph.value(dense).slot != kNoSlot) {
    return get(graph.value(dense).slot);
  }
  graph.mark_output(dense, "dense");
  const Plan plan = make_plan(graph, DeviceKind::cpu);
  Executor executor(cpu_memory(), kernel_lookup(DeviceKind::cpu), table);
  executor.reserve_arena(plan.arena_bytes);
  const Program program = executor.bind(graph, plan);
  for (const SlotId s : needed) {
    executor.write_slot(s, get(s));
  }
  executor.run(program);
  return executor.read(program, dense);
}

}  // namespace lithe::nn
