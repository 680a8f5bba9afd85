// What a training step is fed: named tensors whose first dimension is the number of samples.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/core/tensor.h"

namespace lithe {

struct BatchField {
  std::string name;  // of the graph input it is written to: "pixels", "input_ids", "labels", ...
  Tensor tensor;
};

struct Batch {
  std::vector<BatchField> fields;
  std::vector<int64_t> rows;  // which samples of the source, in order
  int64_t tokens = 0;         // length that all rows are padded to; 0: not text
  int64_t epoch = 0;
  int64_t step = 0;

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  // Null when there is no such field.
  const Tensor* find(std::string_view name) const;
  // The field of that name, made or remade where there is none of this dtype and shape.
  Tensor& field(std::string_view name, DType dtype, const Shape& shape);
};

// Samples that can be put together to a batch. All members are const and safe to call from several
// threads at once; a batch is a pure function of its rows and its epoch.
class BatchSource {
 public:
  virtual ~BatchSource() = default;

  virtual int64_t size() const = 0;
  // Tokens of a sample, for batches of similar length; 0 where samples have no length.
  virtual int64_t length(int64_t /*row*/) const { return 0; }
  // Sets batch.fields and batch.tokens for batch.rows and batch.epoch; tensors of the right shape
  // that are there already are filled again. Throws FileError for a sample that cannot be read.
  virtual void fill(Batch& batch) const = 0;
};

}  // namespace lithe
