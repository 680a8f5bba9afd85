// Products with a dimension of at most kNarrow, as those of a head with two labels: one pass over
// the long operand, where the library's tiles would stay empty. Summed as the library does, in fp32
// or fp64, in a fixed order. Device-only.
#pragma once

#include "tensor/graph/op.h"
#include "tensor/ops/matmul.h"

namespace lithe::narrow_product {

// dw [out, in] = alpha dyᵀ x, db [out] = sum of dy over the rows, of dy [rows, out], x [rows, in].
struct Dw {
  DType dtype = DType::f32;
  int64_t rows = 0, out = 0, in = 0;
  const void* dy = nullptr;
  const void* x = nullptr;
  void* dw = nullptr;
  void* db = nullptr;  // may be null
  double alpha = 1;
};

// c [rows, columns] = alpha a b, of a [rows, inner], b [inner, columns].
struct Outer {
  DType dtype = DType::f32;
  int64_t rows = 0, inner = 0, columns = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  double alpha = 1;
};

// Whether these kernels are made for a product of `narrow` by `wide`.
inline bool fits(int64_t narrow, int64_t wide) {
  constexpr int64_t kLeast = 32;  // a warp lies along the wide dimension
  return narrow > 0 && narrow <= kNarrow && wide >= kLeast;
}

// Any number of rows. `dw` uses the workspace of the call, and works without.
void dw(const KernelArgs& args, const Dw& product);
void outer(const KernelArgs& args, const Outer& product);

}  // namespace lithe::narrow_product
