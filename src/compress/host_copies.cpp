#include "compress/host_copies.h"

#include "tensor/ops/offload.h"

namespace lithe {
namespace {

NodeId end_of_forward(const Graph& g) {
  NodeId n = g.first();
  while (n != kNoNode && g.node(n).phase == Phase::forward) {
    n = g.next(n);
  }
  return n;
}

}  // namespace

std::vector<ValueId> emit_host_stores(Graph& g, std::span<const ValueId> values) {
  std::vector<ValueId> out;
  ValueId copy = kNoValue;  // under way
  const auto wait = [&] {
    if (copy != kNoValue) {
      out.push_back(offload_wait(g, copy, values[out.size()]));
    }
  };
  g.set_phase(Phase::forward);
  for (const ValueId v : values) {
    const NodeId made = g.value(v).producer;
    g.set_scope(g.node(made).scope);
    // Behind the copies of the same node's other outputs.
    NodeId behind = g.next(made);
    while (behind != kNoNode &&
           (g.node(behind).op == &offload_store_op || g.node(behind).op == &offload_wait_op)) {
      behind = g.next(behind);
    }
    g.set_cursor(behind);
    wait();
    copy = offload_store(g, v);
  }
  g.set_cursor(end_of_forward(g));
  wait();
  return out;
}

HostLoads::HostLoads(Graph& graph, std::vector<ValueId> on_host)
    : graph_(graph), on_host_(std::move(on_host)) {
  graph_.set_phase(Phase::backward);
  graph_.set_cursor(end_of_forward(graph_));
  start();
}

void HostLoads::start() {
  under_way_ = started_ < on_host_.size() ? offload_load(graph_, on_host_[started_++]) : kNoValue;
}

ValueId HostLoads::next() {
  const ValueId here = offload_wait(graph_, under_way_);
  start();
  return here;
}

}  // namespace lithe
