// Convolution and resampling on channels-last images x [B, H, W, C].
#pragma once

#include <array>

#include "tensor/graph/gradient.h"

namespace lithe {

struct ConvAttrs {
  int stride_h = 1, stride_w = 1;
  int pad_h = 0, pad_w = 0;
  int groups = 1;
};

// weight [O, KH, KW, C / groups] (files hold OIHW; loading transposes), bias [O] or kNoValue.
// Returns [B, H', W', O], H' = (H + 2 pad - KH) / stride + 1. dW needs x, dx needs W.
ValueId conv2d(Graph& graph, ValueId x, ValueId weight, ValueId bias, const ConvAttrs& attrs);

struct PoolAttrs {
  int kernel_h = 2, kernel_w = 2;
  int stride_h = 2, stride_w = 2;
  int pad_h = 0, pad_w = 0;  // padded positions never win a maximum and count in no average
};
ValueId avg_pool2d(Graph& graph, ValueId x, const PoolAttrs& attrs);
ValueId max_pool2d(Graph& graph, ValueId x,
                   const PoolAttrs& attrs);  // backward keeps int32 indices

// Each pixel repeated factor x factor times.
ValueId upsample_nearest(Graph& graph, ValueId x, int factor);
// [B, H, W, C] -> [B, H/r, W/r, C r²]; channel c r² + dy r + dx, PyTorch's order.
ValueId pixel_unshuffle(Graph& graph, ValueId x, int factor);
// Its inverse: [B, H, W, C r²] -> [B, H r, W r, C].
ValueId pixel_shuffle(Graph& graph, ValueId x, int factor);

extern const OpDef conv2d_op, conv2d_dx_op, conv2d_dw_op, avg_pool2d_op, avg_pool2d_grad_op,
    max_pool2d_op, max_pool2d_grad_op, upsample_nearest_op, upsample_nearest_grad_op,
    pixel_unshuffle_op, pixel_shuffle_op;

// conv2d_dx: dx from (dy, weight); the image's size is not in dy when a stride rounds down.
struct ConvDxAttrs {
  ConvAttrs conv;
  int64_t height = 0, width = 0;
};
// conv2d_dw: dw from (x, dy).
struct ConvDwAttrs {
  ConvAttrs conv;
  int64_t kernel_h = 1, kernel_w = 1;
};
// avg_pool2d_grad: dx from dy; max_pool2d_grad: dx from (dy, indices), an index being h W + w.
struct PoolGradAttrs {
  PoolAttrs pool;
  int64_t height = 0, width = 0;
};
struct ResampleAttrs {
  int factor = 1;
};

void conv2d_cpu(const KernelArgs& args);
void conv2d_dx_cpu(const KernelArgs& args);
void conv2d_dw_cpu(const KernelArgs& args);
void avg_pool2d_cpu(const KernelArgs& args);
void avg_pool2d_grad_cpu(const KernelArgs& args);
void max_pool2d_cpu(const KernelArgs& args);
void max_pool2d_grad_cpu(const KernelArgs& args);
void upsample_nearest_cpu(const KernelArgs& args);
void upsample_nearest_grad_cpu(const KernelArgs& args);
void pixel_unshuffle_cpu(const KernelArgs& args);
void pixel_shuffle_cpu(const KernelArgs& args);

}  // namespace lithe
