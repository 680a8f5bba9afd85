#include "tensor/graph/executor.h"

#include <algorithm>

#include "tensor/core/error.h"
#include "tensor/graph/slot_layout.h"

namespace lithe {
namespace {

// All bits set is NaN in every floating type.
constexpr uint8_t kPoison = 0xff;

void check_same(std::string_view where, const TensorRef& device, const Tensor& host) {
  if (device.shape != host.shape() || device.dtype != host.dtype()) {
    throw ShapeError(where, "is {} {}, the given tensor {} {}", dtype_name(device.dtype),
                     device.shape, dtype_name(host.dtype()), host.shape());
  }
}

}  // namespace

Executor::Executor(std::shared_ptr<DeviceMemory> memory, KernelLookup lookup,
                   const SlotTable& slots)
    : memory_(std::move(memory)), lookup_(lookup), slots_(&slots) {
  const SlotLayout layout = slot_layout(slots);
  slot_offset_ = layout.offset;
  host_slots_.resize(static_cast<size_t>(slots.size()));
  for (SlotId s = 0; s < slots.size(); ++s) {
    if (slots[s].on_host) {
      host_slots_[static_cast<size_t>(s)] = Tensor(slots[s].dtype, slots[s].shape);
    }
  }
  slots_block_ = Block(memory_, layout.bytes, "weights and optimizer state");
}

void Executor::reserve_arena(int64_t bytes) {
  if (bytes > arena_.bytes() || arena_.data() == nullptr) {
    arena_ = Block();  // first give back, so that the two never coexist
    arena_ = Block(memory_, bytes, "the step's arena");
  }
}

void Executor::reserve_host(int64_t bytes) {
  if (bytes > host_bytes()) {
    host_.emplace_back(memory_, bytes);
  }
}

TensorRef Executor::slot(SlotId id) const {
  const Slot& s = (*slots_)[id];
  if (s.on_host) {
    throw GraphError(s.name, "lies in the host's memory, where no kernel reads it; use its copy");
  }
  return {static_cast<std::byte*>(slots_block_.data()) + slot_offset_[static_cast<size_t>(id)],
          s.dtype, s.shape};
}

TensorRef Executor::address(const Graph& graph, const Plan& plan, ValueId v) const {
  if (v == kNoValue) {
    return {};
  }
  const Value& value = graph.value(v);
  const Placement& place = plan.placement[static_cast<size_t>(v)];
  if (place.block == Placement::Block::slot) {
    // Follow overwriting nodes back to the leaf.
    ValueId leaf = v;
    while (graph.value(leaf).slot == kNoSlot) {
      const NodeId producer = graph.value(leaf).producer;
      for (const AliasRule& rule : graph.node(producer).op->aliases) {
        if (rule.output == graph.value(leaf).output_index && rule.kind != Alias::none) {
          leaf = graph.in(producer, rule.input);
          break;
        }
      }
    }
    return {slot(graph.value(leaf).slot).data, value.dtype, value.shape};
  }
  auto* block = static_cast<std::byte*>(arena_.data());
  if (place.block == Placement::Block::host) {
    block = host_.empty() ? nullptr : host_.back().data();  // empty: of no bytes
  }
  return {block + place.offset, value.dtype, value.shape};
}

Program Executor::bind(const Graph& graph, const Plan& plan) {
  reserve_arena(plan.arena_bytes);
  reserve_host(plan.host_bytes);
  Program program;
  program.graph_ = &graph;
  program.plan_ = &plan;
  size_t operands = 0;
  for (NodeId n : plan.order) {
    operands += graph.inputs(n).size() + graph.outputs(n).size();
  }
  program.refs_.reserve(operands);  // spans below point into it
  for (size_t p = 0; p < plan.order.size(); ++p) {
    const NodeId n = plan.order[p];
    const OpDef& op = *graph.node(n).op;
    const DeviceKernel kernel = lookup_(op);
    if (kernel.run == nullptr) {
      throw DeviceError(graph.node_name(n), "the op '{}' has no kernel on {}; use --device cpu",
                        op.name, memory_->description());
    }
    const size_t begin = program.refs_.size();
    for (ValueId v : graph.inputs(n)) {
      program.refs_.push_back(address(graph, plan, v));
    }
    for (ValueId v : graph.outputs(n)) {
      program.refs_.push_back(address(graph, plan, v));
    }
    const size_t inputs = graph.inputs(n).size();
    KernelArgs args;
    args.op = op.name;
    args.in = {program.refs_.data() + begin, inputs};
    args.out = {program.refs_.data() + begin + inputs, graph.outputs(n).size()};
    args.attrs = &graph.node(n).attrs;
    args.stream = memory_->stream();
    args.copy_stream = memory_->copy_stream();
    args.numerics = graph.numerics();
    if (const int32_t scratch = plan.scratch[p]; scratch >= 0) {
      const Buffer& b = plan.buffers[static_cast<size_t>(scratch)];
      args.workspace = static_cast<std::byte*>(arena_.data()) + b.offset;
      args.workspace_bytes = b.bytes;
    }
    program.kernels_.push_back(kernel);
    program.args_.push_back(args);
  }
  for (size_t p = 0; p < plan.order.size(); ++p) {
    if (program.kernels_[p].prepare != nullptr) {
      program.kernels_[p].prepare(program.args_[p]);
    }
  }
  return program;
}

void Executor::write_slot(SlotId id, const Tensor& value) {
  if (Tensor& own = host_slots_[static_cast<size_t>(id)]; (*slots_)[id].on_host) {
    check_same((*slots_)[id].name, {own.data(), own.dtype(), own.shape()}, value);
    own = value.clone();
    return;
  }
  const TensorRef to = slot(id);
  check_same((*slots_)[id].name, to, value);
  memory_->copy_in(to.data, value.data(), value.bytes());
}

Tensor Executor::read_slot(SlotId id) const {
  if ((*slots_)[id].on_host) {
    return host_slots_[static_cast<size_t>(id)].clone();
  }
  const TensorRef from = slot(id);
  Tensor out(from.dtype, from.shape);
  memory_->copy_out(out.data(), from.data, out.bytes());
  return out;
}

TensorRef Executor::ref(const Program& program, ValueId value) const {
  return address(program.graph(), program.plan(), value);
}

void Executor::write(const Program& program, ValueId value, const Tensor& data) {
  const TensorRef to = ref(program, value);
  check_same(program.graph().name(value), to, data);
  memory_->copy_in(to.data, data.data(), data.bytes());
}

Tensor Executor::read(const Program& program, ValueId value) const {
  const TensorRef from = ref(program, value);
  Tensor out(from.dtype, from.shape);
  memory_->copy_out(out.data(), from.data, out.bytes());
  return out;
}

void Executor::read_async(const Program& program, ValueId value, void* host) const {
  const TensorRef from = ref(program, value);
  memory_->copy_out_async(host, from.data, from.bytes());
}

void Executor::run(const Program& program) {
  const auto run_all = [&] { run(program, 0, static_cast<int>(program.args_.size())); };
  if (program.warm_ && program.recording_ == nullptr) {
    program.recording_ = memory_->record(run_all);
  }
  if (program.recording_ != nullptr) {
    program.recording_->launch();
    return;
  }
  run_all();
  program.warm_ = memory_->asynchronous();
}

void Executor::run(const Program& program, int begin, int end) {
  for (int p = begin; p < end;) {
    p = run_at(program, p, end);
  }
}

int Executor::run_at(const Program& program, int position, int end) {
  const auto p = static_cast<size_t>(position);
  end = std::min(end, program.plan().group_end[p]);
  const DeviceKernel& kernel = program.kernels_[p];
  const auto group = std::span(program.args_).subspan(p, static_cast<size_t>(end - position));
  if (group.size() > 1 && kernel.run_group != nullptr) {
    kernel.run_group(group);
  } else {
    std::for_each(group.begin(), group.end(), kernel.run);
  }
  return end;
}

std::vector<double> Executor::run_profiled(const Program& program) {
  const auto count = static_cast<int>(program.args_.size());
  std::vector<int> positions;
  memory_->stamp_begin();
  for (int p = 0; p < count;) {
    positions.push_back(p);
    p = run_at(program, p, count);
    memory_->stamp();
  }
  const std::vector<double> spans = memory_->stamp_end();
  std::vector<double> seconds(static_cast<size_t>(count), 0);
  for (size_t i = 0; i < positions.size(); ++i) {
    seconds[static_cast<size_t>(positions[i])] = spans[i];
  }
  return seconds;
}

void Executor::run_poisoned(const Program& program) {
  const Plan& plan = program.plan();
  const auto poison = [&](const Buffer& b) {
    memory_->fill(static_cast<std::byte*>(arena_.data()) + b.offset, kPoison, b.bytes);
  };
  std::vector<std::vector<const Buffer*>> born(plan.order.size() + 1);
  std::vector<std::vector<const Buffer*>> dying(plan.order.size() + 1);
  for (const Buffer& b : plan.buffers) {
    if (b.first >= 0) {
      born[static_cast<size_t>(b.first)].push_back(&b);
    }
    dying[static_cast<size_t>(b.last)].push_back(&b);
  }
  // Buffers are born at a group's first node and die at its last (Plan::group_end).
  const auto count = static_cast<int>(program.args_.size());
  for (int p = 0; p < count;) {
    const auto begin = static_cast<size_t>(p);
    std::for_each(born[begin].begin(), born[begin].end(), [&](const Buffer* b) { poison(*b); });
    p = run_at(program, p, count);
    const auto last = static_cast<size_t>(p - 1);
    std::for_each(dying[last].begin(), dying[last].end(), [&](const Buffer* b) { poison(*b); });
  }
}

void Executor::mark_arena(uint8_t byte) { memory_->fill(arena_.data(), byte, arena_.bytes()); }

int64_t Executor::touched_arena_bytes(uint8_t byte) const {
  // From the top, in pieces: the arena may be most of the memory there is.
  std::vector<uint8_t> piece(1 << 20);
  for (int64_t end = arena_.bytes(); end > 0;) {
    const int64_t begin = std::max<int64_t>(0, end - static_cast<int64_t>(piece.size()));
    memory_->copy_out(piece.data(), static_cast<std::byte*>(arena_.data()) + begin, end - begin);
    for (int64_t i = end - begin; i > 0; --i) {
      if (piece[static_cast<size_t>(i - 1)] != byte) {
        return begin + i;
      }
    }
    end = begin;
  }
  return 0;
}

}  // namespace lithe
