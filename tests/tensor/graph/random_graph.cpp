#include "random_graph.h"

#include "tensor/core/philox.h"

namespace lithe::test {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : seed_(seed) {}
  uint32_t operator()(uint32_t below) { return philox(seed_, 1, next_++).word[0] % below; }

 private:
  uint64_t seed_;
  uint64_t next_ = 0;
};

}  // namespace

RandomGraph::RandomGraph(uint64_t seed) : graph(slots) {
  Draw draw(seed);
  const int slot_count = static_cast<int>(draw(3));
  for (int i = 0; i < slot_count; ++i) {
    slots.add({.name = fmt::format("slot{}", i),
               .shape = {static_cast<int64_t>(1 + draw(200))},
               .kind = SlotKind::state});
  }
  std::vector<ValueId> readable;
  const auto fill_leaf = [&](ValueId v) {
    std::vector<float> values(static_cast<size_t>(graph.shape(v).numel()));
    for (float& x : values) {
      x = static_cast<float>(draw(64));
    }
    data[v] = std::move(values);
  };
  for (SlotId s = 0; s < slot_count; ++s) {
    fill_leaf(graph.leaf(s));
    readable.push_back(graph.leaf(s));
  }
  const int input_count = 1 + static_cast<int>(draw(4));
  for (int i = 0; i < input_count; ++i) {
    // Sizes differ widely, some repeat (sums need that) and some are zero.
    const int64_t n = draw(8) == 0 ? 0 : static_cast<int64_t>(1 + draw(4) * 150);
    inputs.push_back(graph.input(fmt::format("in{}", i), DType::f32, {n}));
    fill_leaf(inputs.back());
    readable.push_back(inputs.back());
  }
  const int nodes = 3 + static_cast<int>(draw(50));
  for (int i = 0; i < nodes; ++i) {
    graph.set_phase(i < nodes / 2 ? Phase::forward : Phase::backward);
    // Recent values more often, so that chains arise in which values die.
    const size_t window = draw(3) == 0 ? readable.size() : std::min<size_t>(readable.size(), 4);
    const ValueId x = readable[readable.size() - 1 - draw(static_cast<uint32_t>(window))];
    switch (draw(7)) {
      case 0:
        readable.push_back(graph.emit(copy_op, {x}));
        break;
      case 1:
        readable.push_back(graph.emit(twice_op, {x}));
        break;
      case 2: {
        std::vector<ValueId> same;
        for (ValueId v : readable) {
          if (graph.shape(v) == graph.shape(x)) {
            same.push_back(v);
          }
        }
        const ValueId other = same[draw(static_cast<uint32_t>(same.size()))];
        readable.push_back(graph.emit(sum_op, {x, other}));
        break;
      }
      case 3:
        readable.push_back(graph.emit(flat_op, {x}));
        break;
      case 4:
        readable.push_back(graph.emit(scratch_op, {x}));
        break;
      case 5: {
        const NodeId n = graph.value(graph.emit(split_op, {x})).producer;
        readable.push_back(graph.output(n, 0));
        if (draw(2) == 0) {
          readable.push_back(graph.output(n, 1));
        }
        break;
      }
      default:
        readable.push_back(graph.emit(twice_op, {graph.emit(copy_op, {x})}));
        break;
    }
  }
  for (size_t i = 0; i < readable.size(); ++i) {
    if (i + 1 == readable.size() || draw(12) == 0) {
      graph.mark_output(readable[i], fmt::format("out{}", i));
      outputs.push_back(readable[i]);
    }
  }
  // The update at the end: slots that nobody reads afterwards are overwritten.
  graph.set_phase(Phase::update);
  for (SlotId s = 0; s < slot_count; ++s) {
    const ValueId leaf = graph.leaf(s);
    bool shown = false;  // an output may be a view of the slot, which the update would change
    for (ValueId v : outputs) {
      shown = shown || graph.shape(v) == graph.shape(leaf);
    }
    if (!shown) {
      graph.emit(bump_op, {leaf, leaf == readable.back() ? leaf : graph.emit(copy_op, {leaf})});
    }
  }
}

std::map<ValueId, std::vector<float>> interpret(const RandomGraph& random) {
  const Graph& g = random.graph;
  std::map<ValueId, std::vector<float>> values = random.data;
  for (NodeId n : g.order()) {
    const OpDef* op = g.node(n).op;
    const std::vector<float> x = values.at(g.in(n, 0));
    std::vector<float> y = x;
    for (size_t i = 0; i < x.size(); ++i) {
      if (op == &twice_op) {
        y[i] = twice(x[i]);
      } else if (op == &sum_op || op == &bump_op) {
        y[i] = x[i] + values.at(g.in(n, 1))[i];
      } else if (op == &scratch_op || op == &split_op) {
        y[i] = x[i] + 1;
      }
    }
    values[g.output(n, 0)] = y;
    if (op == &split_op) {
      for (size_t i = 0; i < x.size(); ++i) {
        y[i] = x[i] - 1;
      }
      values[g.output(n, 1)] = y;
    }
  }
  return values;
}

Tensor to_tensor(const Graph& graph, ValueId v, const std::vector<float>& values) {
  return Tensor::from<float>(graph.shape(v), values);
}

}  // namespace lithe::test
