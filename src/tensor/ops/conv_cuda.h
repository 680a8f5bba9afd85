// The ways a convolution is computed on CUDA; conv_cuda.cu chooses. All are deterministic and write
// every element of their output.
#pragma once

#include "tensor/ops/conv_geometry.h"

namespace lithe {

// conv_cudnn.cu, or its refusing twin conv_no_cudnn.cpp. False: the library has no deterministic
// algorithm for these sizes within the workspace, and nothing was computed.
bool conv_cudnn(const KernelArgs& args, const ConvGeometry& g, ConvPass pass);

// conv_gemm_cuda.cu: products of tiles that are gathered as they are needed; any size, groups and
// dtype, no workspace.
void conv_gemm_cuda(const KernelArgs& args, const ConvGeometry& g, ConvPass pass);

// conv_depthwise_cuda.cu: one kernel a channel.
void conv_depthwise_cuda(const KernelArgs& args, const ConvGeometry& g, ConvPass pass);

}  // namespace lithe
