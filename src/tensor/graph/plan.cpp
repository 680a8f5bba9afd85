#include "tensor/graph/plan.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace lithe {
namespace {

// Which values share memory, and from when to when that memory is needed.
class Liveness {
 public:
  Liveness(const Graph& graph, const Plan& plan)
      : g_(graph), order_(plan.order), groups_(static_cast<size_t>(graph.value_count())) {
    for (size_t v = 0; v < groups_.size(); ++v) {
      groups_[v].parent = static_cast<ValueId>(v);
    }
    join_views();
    find_last_uses();
    join_in_place();
    widen_to_groups(plan.group_end);
  }

  // The value that stands for all that share v's memory: the earliest one.
  ValueId root(ValueId v) const {
    while (group(v).parent != v) {
      v = group(v).parent;
    }
    return v;
  }
  int first(ValueId r) const { return group(r).first; }
  int last(ValueId r) const { return group(r).last; }
  MemoryClass cls(ValueId r) const {
    if (group(r).saved) {
      return MemoryClass::saved_activations;
    }
    return group(r).gradient ? MemoryClass::gradients : MemoryClass::temporaries;
  }

 private:
  struct Group {
    ValueId parent = kNoValue;
    int first = -1;
    int last = -1;
    bool saved = false;     // a forward value that backward reads
    bool gradient = false;  // holds a parameter's complete gradient
  };
  Group& group(ValueId v) { return groups_[static_cast<size_t>(v)]; }
  const Group& group(ValueId v) const { return groups_[static_cast<size_t>(v)]; }

  // Views and overwritten slots always share; they are joined before lifetimes are known.
  void join_views() {
    for (size_t p = 0; p < order_.size(); ++p) {
      const NodeId n = order_[p];
      for (ValueId v : g_.outputs(n)) {
        group(v).first = static_cast<int>(p);
      }
      for (const AliasRule& rule : g_.node(n).op->aliases) {
        if ((rule.kind == Alias::view || rule.kind == Alias::mutate) &&
            rule.input < g_.node(n).input_count) {
          if (const ValueId in = g_.in(n, rule.input); in != kNoValue) {
            group(g_.output(n, rule.output)).parent = root(in);
          }
        }
      }
    }
  }

  void find_last_uses() {
    const int end = static_cast<int>(order_.size());
    for (int p = 0; p < end; ++p) {
      const NodeId n = order_[static_cast<size_t>(p)];
      // A view moves no data, so it does not make a forward value a saved one; its readers do.
      const bool saves =
          g_.node(n).phase != Phase::forward && g_.node(n).op->aliases[0].kind != Alias::view;
      for (ValueId v : g_.inputs(n)) {
        if (v == kNoValue) {
          continue;
        }
        Group& r = group(root(v));
        r.last = p;
        r.saved = r.saved || (saves && made_in_forward(root(v)));
      }
      for (ValueId v : g_.outputs(n)) {
        group(root(v)).last = p;
      }
    }
    for (ValueId v = 0; v < g_.value_count(); ++v) {
      const Value& value = g_.value(v);
      if (value.is_output) {
        group(root(v)).last = end;
      }
      if (value.is_gradient) {
        group(root(v)).gradient = true;
      }
    }
  }

  bool made_in_forward(ValueId v) const {
    const NodeId producer = g_.value(v).producer;
    return producer != kNoNode && g_.node(producer).phase == Phase::forward;
  }

  // An output takes the place of an input whose memory is needed by nobody after this node.
  void join_in_place() {
    for (size_t p = 0; p < order_.size(); ++p) {
      const NodeId n = order_[p];
      for (const AliasRule& rule : g_.node(n).op->aliases) {
        if (rule.kind != Alias::in_place || rule.input >= g_.node(n).input_count ||
            rule.output >= g_.node(n).output_count) {
          continue;
        }
        const ValueId in = g_.in(n, rule.input);
        const ValueId out = g_.output(n, rule.output);
        if (in == kNoValue || group(out).parent != out) {
          continue;
        }
        const ValueId r = root(in);
        const Value& owner = g_.value(r);
        if (owner.slot == kNoSlot && !owner.is_input && group(r).last == static_cast<int>(p) &&
            g_.bytes(r) == g_.bytes(out) && only_reader(n, rule.input, r)) {
          group(r).last = std::max(group(r).last, group(out).last);
          group(r).saved = group(r).saved || group(out).saved;
          group(r).gradient = group(r).gradient || group(out).gradient;
          group(out).parent = r;
        }
      }
    }
  }

  // What one node of a group no longer needs, another may still not overwrite.
  void widen_to_groups(const std::vector<int32_t>& group_end) {
    const auto end = static_cast<int>(order_.size());
    std::vector<int> begin(order_.size());
    for (int p = 0, start = 0; p < end; ++p) {
      start = group_end[static_cast<size_t>(start)] <= p ? p : start;
      begin[static_cast<size_t>(p)] = start;
    }
    for (Group& group : groups_) {
      if (group.first >= 0) {
        group.first = begin[static_cast<size_t>(group.first)];
      }
      if (group.last >= 0 && group.last < end) {
        group.last = group_end[static_cast<size_t>(group.last)] - 1;
      }
    }
  }

  // No other operand lies in the same memory, where it might be read at another index, and no other
  // output has taken it.
  bool only_reader(NodeId n, int input, ValueId r) const {
    for (ValueId v : g_.outputs(n)) {
      if (root(v) == r) {
        return false;
      }
    }
    for (int i = 0; i < g_.node(n).input_count; ++i) {
      if (i != input && g_.in(n, i) != kNoValue && root(g_.in(n, i)) == r) {
        return false;
      }
    }
    return true;
  }

  const Graph& g_;
  const std::vector<NodeId>& order_;
  std::vector<Group> groups_;
};

// Neighbours of one grouped op, as long as none reads what another of them makes.
std::vector<int32_t> find_groups(const Graph& g, const std::vector<NodeId>& order) {
  const auto end = static_cast<int32_t>(order.size());
  std::vector<int32_t> group_end(order.size());
  std::vector<int32_t> made_at(static_cast<size_t>(g.value_count()), -1);
  std::vector<int32_t> read_at(made_at);
  for (int32_t begin = 0; begin < end;) {
    int32_t p = begin;
    const OpDef* op = g.node(order[static_cast<size_t>(begin)]).op;
    const auto since = [&](const std::vector<int32_t>& at, ValueId v) {
      return v != kNoValue && at[static_cast<size_t>(v)] >= begin;
    };
    const auto joins = [&](NodeId n) {
      const auto inputs = g.inputs(n);
      if (g.node(n).op != op ||
          std::any_of(inputs.begin(), inputs.end(), [&](ValueId v) { return since(made_at, v); })) {
        return false;
      }
      // Nor may it overwrite a slot that another of them reads.
      return std::none_of(op->aliases.begin(), op->aliases.end(), [&](const AliasRule& rule) {
        return rule.kind == Alias::mutate && rule.input < g.node(n).input_count &&
               since(read_at, g.in(n, rule.input));
      });
    };
    do {
      for (ValueId v : g.inputs(order[static_cast<size_t>(p)])) {
        if (v != kNoValue) {
          read_at[static_cast<size_t>(v)] = p;
        }
      }
      for (ValueId v : g.outputs(order[static_cast<size_t>(p)])) {
        made_at[static_cast<size_t>(v)] = p;
      }
      ++p;
    } while (p < end && op->grouped && joins(order[static_cast<size_t>(p)]));
    std::fill(group_end.begin() + begin, group_end.begin() + p, p);
    begin = p;
  }
  return group_end;
}

struct Interval {
  int64_t offset;
  int64_t end;
  int first;
  int last;
};

// Puts the buffers down in the given sequence, each into the smallest gap that holds it, and
// returns the size needed; gives up when `limit` is reached.
int64_t place_in(const std::vector<int32_t>& sequence, const std::vector<Buffer>& buffers,
                 int64_t limit, std::vector<int64_t>& offsets) {
  std::vector<Interval> placed;  // by offset
  placed.reserve(sequence.size());
  int64_t total = 0;
  for (int32_t index : sequence) {
    const Buffer& b = buffers[static_cast<size_t>(index)];
    int64_t cursor = 0;
    int64_t best = -1;
    int64_t best_gap = INT64_MAX;
    for (const Interval& other : placed) {
      if (other.last < b.first || other.first > b.last) {
        continue;
      }
      const int64_t gap = other.offset - cursor;
      if (gap >= b.bytes && gap < best_gap) {
        best = cursor;
        best_gap = gap;
      }
      cursor = std::max(cursor, other.end);
    }
    const int64_t offset = best >= 0 ? best : cursor;
    offsets[static_cast<size_t>(index)] = offset;
    total = std::max(total, offset + b.bytes);
    if (total >= limit) {
      return total;
    }
    const auto where = std::upper_bound(placed.begin(), placed.end(), offset,
                                        [](int64_t o, const Interval& i) { return o < i.offset; });
    placed.insert(where, {offset, offset + b.bytes, b.first, b.last});
  }
  return total;
}

}  // namespace

int64_t place_buffers(std::vector<Buffer>& buffers, int64_t lower_bound) {
  std::vector<int32_t> sequence(buffers.size());
  std::iota(sequence.begin(), sequence.end(), 0);
  std::vector<int64_t> offsets(buffers.size(), 0);
  std::vector<int64_t> best_offsets;
  int64_t best = INT64_MAX;
  const auto span_of = [&](int32_t i) {
    const Buffer& b = buffers[static_cast<size_t>(i)];
    return static_cast<int64_t>(b.last) - b.first;
  };
  const auto bytes_of = [&](int32_t i) { return buffers[static_cast<size_t>(i)].bytes; };
  const auto first_of = [&](int32_t i) { return buffers[static_cast<size_t>(i)].first; };
  // No single rule is best on all graphs; the sequences are cheap, so take the smallest result.
  for (int rule = 0; rule < 4 && best > lower_bound; ++rule) {
    std::stable_sort(sequence.begin(), sequence.end(), [&](int32_t a, int32_t b) {
      switch (rule) {
        case 0:
          return span_of(a) != span_of(b) ? span_of(a) > span_of(b) : a < b;
        case 1:
          return bytes_of(a) != bytes_of(b) ? bytes_of(a) > bytes_of(b) : a < b;
        case 2:
          return first_of(a) != first_of(b) ? first_of(a) < first_of(b) : a < b;
        default: {
          const auto area = [&](int32_t i) {
            return static_cast<double>(bytes_of(i)) * static_cast<double>(span_of(i) + 1);
          };
          return area(a) != area(b) ? area(a) > area(b) : a < b;
        }
      }
    });
    const int64_t total = place_in(sequence, buffers, best, offsets);
    if (total < best) {
      best = total;
      best_offsets = offsets;
    }
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    buffers[i].offset = best_offsets[i];
  }
  return buffers.empty() ? 0 : best;
}

namespace {

// Places the buffers, those of adjacent outputs as one; returns the arena's size.
int64_t place_adjacent(const Graph& g, Plan& plan) {
  const auto buffer_of = [&](ValueId v) { return plan.placement[static_cast<size_t>(v)].buffer; };
  std::vector<int32_t> next(plan.buffers.size(), -1);  // the buffer that lies behind
  std::vector<bool> leads(plan.buffers.size(), true);
  for (NodeId n : plan.order) {
    const auto outputs = g.outputs(n);
    for (size_t i = 1; g.node(n).op->adjacent_outputs && i < outputs.size(); ++i) {
      const int32_t a = buffer_of(outputs[i - 1]);
      const int32_t b = buffer_of(outputs[i]);
      if (a < 0 || b < 0 || a == b) {
        continue;
      }
      const Buffer& before = plan.buffers[static_cast<size_t>(a)];
      const Buffer& behind = plan.buffers[static_cast<size_t>(b)];
      if (before.bytes == behind.bytes && before.first == behind.first &&
          before.last == behind.last && leads[static_cast<size_t>(b)]) {
        next[static_cast<size_t>(a)] = b;
        leads[static_cast<size_t>(b)] = false;
      }
    }
  }
  std::vector<Buffer> joined;
  std::vector<int32_t> leader;
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    if (leads[i]) {
      joined.push_back(plan.buffers[i]);
      leader.push_back(static_cast<int32_t>(i));
      for (int32_t b = next[i]; b >= 0; b = next[static_cast<size_t>(b)]) {
        joined.back().bytes += plan.buffers[static_cast<size_t>(b)].bytes;
      }
    }
  }
  const int64_t arena_bytes = place_buffers(joined, plan.live_peak_bytes);
  for (size_t j = 0; j < joined.size(); ++j) {
    int64_t offset = joined[j].offset;
    for (int32_t b = leader[j]; b >= 0; b = next[static_cast<size_t>(b)]) {
      Buffer& buffer = plan.buffers[static_cast<size_t>(b)];
      buffer.offset = offset;
      offset += buffer.bytes;
    }
  }
  return arena_bytes;
}

}  // namespace

Plan make_plan(const Graph& graph, DeviceKind device) {
  Plan plan;
  plan.order = graph.order();
  const int end = static_cast<int>(plan.order.size());
  plan.group_end = find_groups(graph, plan.order);
  const Liveness live(graph, plan);

  plan.placement.resize(static_cast<size_t>(graph.value_count()));
  std::vector<int32_t> buffer_of(static_cast<size_t>(graph.value_count()), -1);
  for (ValueId v = 0; v < graph.value_count(); ++v) {
    const Value& value = graph.value(v);
    if (value.producer != kNoNode && graph.node(value.producer).dead) {
      continue;
    }
    Placement& place = plan.placement[static_cast<size_t>(v)];
    const ValueId r = live.root(v);
    if (graph.value(r).slot != kNoSlot) {
      place.block = Placement::Block::slot;
      continue;
    }
    const NodeId made = graph.value(r).producer;
    const bool on_host = made != kNoNode && graph.node(made).op->outputs_on_host;
    place.block = on_host ? Placement::Block::host : Placement::Block::arena;
    std::vector<Buffer>& buffers = on_host ? plan.host_buffers : plan.buffers;
    int32_t& buffer = buffer_of[static_cast<size_t>(r)];
    if (buffer < 0) {
      buffer = static_cast<int32_t>(buffers.size());
      buffers.push_back({.value = r,
                         .bytes = round_up(graph.bytes(r), kArenaAlignment),
                         .first = live.first(r),
                         .last = std::max(live.last(r), 0),
                         .cls = live.cls(r)});
    }
    place.buffer = on_host ? -1 : buffer;
  }
  plan.scratch.assign(plan.order.size(), -1);
  for (int p = 0, group = 0; p < end; ++p) {
    group = plan.group_end[static_cast<size_t>(group)] <= p ? p : group;
    const NodeId n = plan.order[static_cast<size_t>(p)];
    const OpDef& op = *graph.node(n).op;
    const int64_t bytes = op.workspace == nullptr ? 0 : op.workspace(graph, n, device);
    if (bytes > 0) {
      plan.scratch[static_cast<size_t>(p)] = static_cast<int32_t>(plan.buffers.size());
      plan.buffers.push_back({.scratch_of = n,
                              .bytes = round_up(bytes, kArenaAlignment),
                              .first = group,
                              .last = plan.group_end[static_cast<size_t>(p)] - 1,
                              .cls = MemoryClass::workspace});
    }
  }

  // Checked first: once this sum fits in 64 bits, every sum of live buffers below does.
  for (const Buffer& b : plan.buffers) {
    plan.naive_bytes = checked_add(plan.naive_bytes, b.bytes);
  }
  const std::vector<MemoryByClass> timeline = plan.timeline();
  for (size_t p = 0; p < timeline.size(); ++p) {
    const int64_t sum = std::accumulate(timeline[p].begin(), timeline[p].end(), int64_t{0});
    if (sum > plan.live_peak_bytes) {
      plan.live_peak_bytes = sum;
      plan.peak_position = static_cast<int>(p);
      plan.peak_by_class = timeline[p];
    }
  }
  plan.arena_bytes = place_adjacent(graph, plan);
  plan.host_bytes = place_buffers(plan.host_buffers, 0);
  plan.peak_by_class[static_cast<size_t>(MemoryClass::temporaries)] +=
      plan.arena_bytes - plan.live_peak_bytes;
  for (size_t v = 0; v < plan.placement.size(); ++v) {
    Placement& place = plan.placement[v];
    if (place.buffer >= 0) {
      place.offset = plan.buffers[static_cast<size_t>(place.buffer)].offset;
    } else if (place.block == Placement::Block::host) {
      const auto r = static_cast<size_t>(live.root(static_cast<ValueId>(v)));
      place.offset = plan.host_buffers[static_cast<size_t>(buffer_of[r])].offset;
    }
  }
  return plan;
}

std::vector<MemoryByClass> Plan::timeline() const {
  // One entry more than nodes: the last is the moment after the step. What is written before the
  // step (first == -1) counts from the first node on.
  const size_t n = order.size() + 1;
  std::vector<MemoryByClass> out(n, MemoryByClass{});
  for (const Buffer& b : buffers) {
    const auto c = static_cast<size_t>(b.cls);
    out[static_cast<size_t>(std::max(b.first, 0))][c] += b.bytes;
    if (static_cast<size_t>(b.last) + 1 < n) {
      out[static_cast<size_t>(b.last + 1)][c] -= b.bytes;
    }
  }
  for (size_t p = 1; p < n; ++p) {
    for (size_t c = 0; c < kMemoryClassCount; ++c) {
      out[p][c] += out[p - 1][c];
    }
  }
  return out;
}

MemoryByClass slot_bytes(const SlotTable& slots) {
  MemoryByClass out{};
  for (SlotId s = 0; s < slots.size(); ++s) {
    if (slots[s].on_host) {
      continue;
    }
    int64_t& sum = out[static_cast<size_t>(slots[s].cls)];
    sum = checked_add(sum, round_up(byte_size(slots[s].dtype, slots[s].shape), kArenaAlignment));
  }
  return out;
}

}  // namespace lithe
