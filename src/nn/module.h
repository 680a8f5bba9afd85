// The module tree: it lives for the whole run and owns names and weights; each step's graph is
// built from it. Names are the dotted names of the Hugging Face files.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/graph/graph.h"

namespace lithe::nn {

// How a tensor lies in its file, where that differs from the engine's layout.
enum class FileLayout : uint8_t {
  same,
  conv_oihw,  // file [O, I, KH, KW], engine [O, KH, KW, I]
};

struct Parameter {
  std::string name;  // relative to the module: "weight", "bias", "cls_token"
  SlotId slot = kNoSlot;
  FileLayout layout = FileLayout::same;
};

class Module {
 public:
  // A root; children are made through `child`.
  Module(SlotTable& slots, std::string path) : slots_(&slots), path_(std::move(path)) {}
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  const std::string& path() const { return path_; }
  // Last component of the path, the scope that its nodes get.
  std::string_view name() const;
  // Index among the model's repeated blocks; -1 outside of them.
  int block() const { return block_; }
  virtual std::string_view kind() const { return "module"; }
  SlotTable& slots() const { return *slots_; }
  const std::vector<std::unique_ptr<Module>>& children() const { return children_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  // Calls visit(module) on this module and all below, parents first, in order of definition.
  template <typename F>
  void visit(F&& f) const {
    f(*this);
    for (const auto& child : children_) {
      std::as_const(*child).visit(f);
    }
  }
  template <typename F>
  void visit(F&& f) {
    f(*this);
    for (const auto& child : children_) {
      child->visit(f);
    }
  }

  // Whether its training forward draws random numbers: the graph then needs the input "rng".
  virtual bool draws() const { return false; }
  // What a plain file of the model holds of a parameter; get(slot) gives a slot's value.
  virtual Tensor file_value(const Parameter& parameter,
                            const std::function<Tensor(SlotId)>& get) const {
    return get(parameter.slot);
  }
  // A trained parameter of the class `adapters`, which a pass adds and plain files leave out.
  SlotId add_adapter(std::string_view name, const Shape& shape);
  // The module forgets its adapters' parameters; their slots stay in the table, frozen.
  void remove_adapters();

 protected:
  // Makes a child at `path().name`. T's constructor takes (SlotTable&, path, args...).
  template <typename T, typename... Args>
  T& child(std::string_view name, Args&&... args) {
    auto made = std::make_unique<T>(*slots_, join(path_, name), std::forward<Args>(args)...);
    T& out = *made;
    if (block_ >= 0) {
      out.set_block(block_);
    }
    children_.push_back(std::move(made));
    return out;
  }
  // The same, for the index-th of the model's repeated blocks.
  template <typename T, typename... Args>
  T& block_child(std::string_view name, int index, Args&&... args) {
    T& out = child<T>(name, std::forward<Args>(args)...);
    out.set_block(index);
    return out;
  }
  SlotId add_parameter(std::string_view name, const Shape& shape, Init init,
                       FileLayout layout = FileLayout::same);

 private:
  static std::string join(std::string_view path, std::string_view name);
  void set_block(int index);

  SlotTable* slots_;
  std::string path_;
  int block_ = -1;
  std::vector<std::unique_ptr<Module>> children_;
  std::vector<Parameter> parameters_;
};

// Opens the module's scope in the graph while its forward emits nodes.
class ModuleScope {
 public:
  ModuleScope(Graph& graph, const Module& module) : graph_(graph), saved_(graph.current_scope()) {
    graph.set_scope(graph.add_scope(module.path(), module.block()));
  }
  ~ModuleScope() { graph_.set_scope(saved_); }
  ModuleScope(const ModuleScope&) = delete;
  ModuleScope& operator=(const ModuleScope&) = delete;

 private:
  Graph& graph_;
  ScopeId saved_;
};

}  // namespace lithe::nn
