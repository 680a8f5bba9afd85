// What the shape rules of the norms have in common.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

inline DType norm_statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

inline Shape norm_rows(const Shape& x) { return {x.product(0, x.rank() - 1)}; }

inline void expect_norm_rows(InferContext& c, int i) {
  c.expect_floating(i);
  if (c.shape(i).rank() < 1) {
    c.fail("input {} is a scalar; [..., H] is wanted", i);
  }
}

inline void expect_norm_parameter(InferContext& c, int i, const char* name) {
  c.expect_same_dtype(0, i);
  c.expect_shape(i, {c.shape(0).back()}, name);
}

// Of input 0's rows.
inline void expect_norm_statistics(InferContext& c, int i, const char* name) {
  c.expect_shape(i, norm_rows(c.shape(0)), name);
  if (c.dtype(i) != norm_statistics_dtype(c.dtype(0))) {
    c.fail("{} is {}, {} wanted", name, dtype_name(c.dtype(i)),
           dtype_name(norm_statistics_dtype(c.dtype(0))));
  }
}

}  // namespace lithe
