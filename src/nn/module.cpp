#include "nn/module.h"

namespace lithe::nn {

std::string_view Module::name() const {
  const size_t dot = path_.rfind('.');
  return dot == std::string::npos ? std::string_view(path_)
                                  : std::string_view(path_).substr(dot + 1);
}

std::string Module::join(std::string_view path, std::string_view name) {
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

void Module::set_block(int index) {
  block_ = index;
  for (const auto& child : children_) {
    child->set_block(index);
  }
}

SlotId Module::add_parameter(std::string_view name, const Shape& shape, Init init,
                             FileLayout layout) {
  const SlotId slot = slots_->add({.name = join(path_, name),
                                   .shape = shape,
                                   .cls = MemoryClass::weights,
                                   .kind = SlotKind::parameter,
                                   .init = init,
                                   .trainable = true});
  parameters_.push_back({std::string(name), slot, layout});
  return slot;
}

SlotId Module::add_adapter(std::string_view name, const Shape& shape) {
  const SlotId slot = add_parameter(name, shape, Init::zeros());
  (*slots_)[slot].cls = MemoryClass::adapters;
  return slot;
}

void Module::remove_adapters() {
  std::erase_if(parameters_, [&](const Parameter& p) {
    Slot& slot = (*slots_)[p.slot];
    const bool adapter = slot.cls == MemoryClass::adapters;
    slot.trainable = slot.trainable && !adapter;
    return adapter;
  });
}

}  // namespace lithe::nn
