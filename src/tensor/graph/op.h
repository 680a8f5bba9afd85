// What the engine knows of an op: one constant table entry each. The graph never switches on an
// op's identity; everything it does with a node goes through these functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "tensor/core/memory.h"
#include "tensor/core/shape.h"

namespace lithe {

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr ValueId kNoValue = -1;
inline constexpr NodeId kNoNode = -1;

class Graph;
struct Node;
struct OpDef;
class GradContext;
class InferContext;

// An op's constants (axis, epsilon, strides, ...): a small plain struct of the op's own type, held
// inline so that building a graph allocates nothing per node.
class Attrs {
 public:
  static constexpr size_t kBytes = 80;

  Attrs() = default;
  template <typename T>
  requires(!std::is_same_v<std::remove_cvref_t<T>, Attrs>) Attrs(const T& value)
      : type_(&kTag<T>) {  // NOLINT: implicit on purpose
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kBytes);
    std::memcpy(bytes_.data(), &value, sizeof(T));
  }

  // The struct stored; a default-constructed one when nothing was. Throws GraphError on another
  // type.
  template <typename T>
  T as() const {
    T out{};
    if (type_ != nullptr) {
      if (type_ != &kTag<T>) {
        throw_wrong_type();
      }
      std::memcpy(&out, bytes_.data(), sizeof(T));
    }
    return out;
  }

 private:
  template <typename T>
  static constexpr char kTag = 0;
  [[noreturn]] static void throw_wrong_type();

  const char* type_ = nullptr;
  alignas(8) std::array<std::byte, kBytes> bytes_{};
};

// How an output may share an input's memory.
enum class Alias : uint8_t {
  none,
  view,      // same bytes, another shape: always shared
  in_place,  // shared when the input dies here; the kernel must accept out == in
  mutate,    // the input is a persistent slot and is overwritten
};

struct AliasRule {
  Alias kind = Alias::none;
  int8_t output = 0;
  int8_t input = 0;
};

using AliasRules = std::array<AliasRule, 5>;

// A tensor as a kernel sees it: contiguous, row-major.
struct TensorRef {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  int64_t numel() const { return shape.numel(); }
  int64_t bytes() const { return byte_size(dtype, shape); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// What kernels of a graph may trade for speed.
struct Numerics {
  bool tf32 = false;          // fp32 products on CUDA in TF32: 10 bits of mantissa, summed in fp32
  bool deterministic = true;  // false: sums may change their order from run to run
};

// One kernel call. Optional inputs that are absent have data == nullptr.
struct KernelArgs {
  std::string_view op;  // for errors: "[softmax] ..."
  std::span<const TensorRef> in;
  std::span<const TensorRef> out;
  const Attrs* attrs = nullptr;
  void* workspace = nullptr;  // as many bytes as OpDef::workspace asked for
  int64_t workspace_bytes = 0;
  void* stream = nullptr;       // cudaStream_t on CUDA
  void* copy_stream = nullptr;  // another, beside it: of copies to and from host memory
  Numerics numerics = {};

  template <typename T>
  T attr() const {
    return attrs->as<T>();
  }
};

using Kernel = void (*)(const KernelArgs&);
// Calls of one op that read nothing of one another, as one launch.
using GroupKernel = void (*)(std::span<const KernelArgs>);

// How a device runs an op.
struct DeviceKernel {
  Kernel run = nullptr;             // null: it has no kernel
  GroupKernel run_group = nullptr;  // null: a group is run one by one
  // Runs once before the first call, to choose algorithms by measuring. Operands are in place, but
  // hold no data yet; outputs in the arena and the workspace may be overwritten, slots may not.
  Kernel prepare = nullptr;
};

struct OpDef {
  std::string_view name;
  // Checks inputs and declares outputs (InferContext::output), or throws ShapeError.
  void (*infer)(InferContext&) = nullptr;
  // Emits nodes for the wanted input gradients only; null: not differentiable.
  void (*grad)(GradContext&) = nullptr;
  // Emits the same function in basic ops and returns the outputs; null: the op is basic itself.
  void (*define)(Graph&, NodeId, std::span<ValueId> outputs) = nullptr;
  // FLOPs; null: one per output element.
  double (*flops)(const Graph&, NodeId) = nullptr;
  // Scratch bytes the kernel needs on this device; null: none.
  int64_t (*workspace)(const Graph&, NodeId, DeviceKind) = nullptr;
  AliasRules aliases{};
  Kernel cpu = nullptr;
  // Keeps its place though nobody reads its outputs (updates mutate slots).
  bool has_effect = false;
  // Neighbours of this op that read nothing of one another form a group: the plan lets them run at
  // the same time (Plan::group_end).
  bool grouped = false;
  // Outputs of one size and lifetime lie one behind the other in the arena, so that one product can
  // write them all.
  bool adjacent_outputs = false;
  // Outputs lie in host memory that the device can copy to and from (Plan::host_bytes). Only ops
  // that know of it may read them.
  bool outputs_on_host = false;
};

}  // namespace lithe
