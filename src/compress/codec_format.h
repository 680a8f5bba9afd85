// The formats in which a saved activation may wait for backward, and how recipes write them.
#pragma once

#include <string>
#include <vector>

#include "tensor/ops/fixed_point.h"
#include "tensor/ops/quantize.h"

namespace lithe {

// A saved value's coded form.
struct Coded {
  std::vector<ValueId> parts;
  Shape shape;  // of the value
  DType dtype = DType::f32;
};

class CodecFormat {
 public:
  enum class Kind : uint8_t {
    keep,         // as it is
    fixed_point,  // q3.4, uq0.8 (unsigned), uint8 ([0, 1] in 255 steps)
    quantized,    // int8 or int4 with a scale for each group of 64; int4/32, int8/row
    cast,         // bf16, fp16, fp32
    top_k,        // top10%: that share of each row, or of all, by magnitude; the rest zeros
    offload,      // host memory, copied there and back beside the kernels
    recompute,    // nothing: computed again from what is kept; regenerate is the same
    derive,       // nothing: attention's gradient derives what it needs of its output
    half,         // 16 bits a number: bf16, or as it is where it has no more
    quarter,      // a quarter of the value's bits: int8, of 16 bits int4; quarter/32
    mask,         // bytes, bits: of a dropout, a byte or a bit an element
  };
  // For all of an instance's quantized values.
  struct Options {
    DType scales = DType::bf16;
    bool stochastic = false;
  };

  // Throws UsageError("where", ...) with what there is.
  CodecFormat(const std::string& text, const Options& options, std::string_view where);

  Kind kind() const { return kind_; }
  const std::string& name() const { return name_; }
  bool packed() const { return name_ == "bits"; }  // of masks
  bool draws() const { return kind_ == Kind::quantized && quantize_.stochastic; }
  // `half` and `quarter` as what they mean for a value's type; others as they are.
  CodecFormat of(DType dtype) const;
  // The following are for what of() returns. Why a value of this shape and type cannot be coded so,
  // or "".
  std::string refusal(DType dtype, const Shape& shape) const;
  int64_t bytes(DType dtype, const Shape& shape) const;  // of the coded form
  // Both ways emit at the graph's cursor. `site` names the value, for random numbers of its own;
  // rng as quantize_encode's.
  Coded encode(Graph& graph, ValueId v, std::string_view site, ValueId rng) const;
  ValueId decode(Graph& graph, const Coded& coded) const;

 private:
  // What is left of each row, or of all.
  Shape kept(const Shape& shape) const;

  Kind kind_ = Kind::keep;
  std::string name_;
  FixedPointAttrs fixed_;
  QuantizeAttrs quantize_;
  DType cast_ = DType::f32;
  int share_ = 0;        // percent
  bool global_ = false;  // of all elements, not of each row
};

}  // namespace lithe
