// Sizes of a convolution and how its kernels cut the work, shared by shape rules, the planned
// workspace and the CPU kernels, so that planned and used bytes are the same numbers.
#pragma once

#include <algorithm>

#include "tensor/ops/conv.h"

namespace lithe {

// x [B, H, W, C], weight [O, KH, KW, C / groups], y [B, H', W', O].
struct ConvGeometry {
  ConvAttrs attrs;
  int64_t batch = 0, height = 0, width = 0, channels = 0;
  int64_t kernel_h = 0, kernel_w = 0;
  int64_t out_height = 0, out_width = 0, out_channels = 0;

  // constexpr: CUDA kernels call them too.
  constexpr int64_t group_in() const { return channels / attrs.groups; }
  constexpr int64_t group_out() const { return out_channels / attrs.groups; }
  constexpr int64_t taps() const { return kernel_h * kernel_w; }
  constexpr int64_t patch() const {
    return taps() * group_in();
  }  // elements one output sees, in a group
  constexpr int64_t image_positions() const { return out_height * out_width; }
  constexpr int64_t positions() const { return batch * image_positions(); }
  constexpr int64_t image() const { return height * width * channels; }
  constexpr int64_t weights() const { return out_channels * patch(); }
  // Patches are the pixels themselves: nothing is gathered.
  constexpr bool pointwise() const {
    return taps() == 1 && attrs.stride_h == 1 && attrs.stride_w == 1 && attrs.pad_h == 0 &&
           attrs.pad_w == 0;
  }
  constexpr bool depthwise() const {
    return channels == attrs.groups && out_channels == attrs.groups;
  }
  // Windows lie side by side (patch embeddings): the patches are a permutation of the pixels.
  constexpr bool tiled() const {
    return attrs.groups == 1 && attrs.stride_h == kernel_h && attrs.stride_w == kernel_w &&
           attrs.pad_h == 0 && attrs.pad_w == 0;
  }
};

enum class ConvPass : uint8_t { forward, dx, dw };

// The workspace of one pass as byte offsets. Elements are fp32, or fp64 for fp64 tensors; 16-bit
// tensors are widened piece by piece. The work is cut into chunks of output positions (rows of the
// GEMM), so that all that grows with the batch stays near kConvChunkBytes.
struct ConvWorkspace {
  int64_t rows = 0;          // positions a chunk
  int64_t images = 0;        // dx: images a pass
  int64_t columns = -1;      // gathered patches [rows, patch]; -1: not needed
  int64_t weight = -1;       // widened weight, or for depthwise weight [taps, C]
  int64_t y = -1;            // widened chunk of y or dy [rows, O]
  int64_t accumulator = -1;  // dx [images, H, W, C] or dw [O, patch] before rounding
  int64_t slices = 0;        // depthwise dw: partial sums [slices, taps, C] at `accumulator`
  int64_t bytes = 0;
};

// Small enough to stay in cache between gathering and multiplying, large enough for the GEMM.
inline constexpr int64_t kConvChunkBytes = int64_t{8} << 20;
// Partial sums of a depthwise dw: fixed, so that the result does not depend on the thread count.
inline constexpr int64_t kDepthwiseSlices = 16;

// The workspace of one pass on CUDA, as byte offsets.
struct ConvWorkspaceCuda {
  int64_t product = -1;  // what a matrix product may use; -1: the pass is none
  int64_t columns = -1;  // gathered patches [positions, patch]; -1: x itself, or no product
  int64_t bytes = 0;
};
// No convolution plans more than this on CUDA.
inline constexpr int64_t kConvMostBytesCuda = int64_t{256} << 20;

// Defined in conv.cpp. On CUDA pointwise passes, and the passes of tiled windows that gather x, are
// matrix products; for the rest the library chooses among the algorithms that fit into `bytes`:
//   16 MiB, and 8 bytes a weight for dw (partial sums in fp32), and a copy of each of x, weight and
//   y whose layout a library may have to change: in fp32 all, in 16 bits those whose channels are
//   no multiple of 8, counted as if they were one; kConvMostBytesCuda at most.
// fp64 and depthwise need none: own kernels compute them.
ConvWorkspaceCuda conv_workspace_cuda(const ConvGeometry& g, ConvPass pass, DType dtype);
ConvWorkspace conv_workspace(const ConvGeometry& g, ConvPass pass, DType dtype);
// From the shapes of x and weight, resp. of dy and weight or x and dy. The shapes must have passed
// the shape rules.
ConvGeometry conv_geometry(const Shape& x, const Shape& weight, const ConvAttrs& attrs);
ConvGeometry conv_geometry_dx(const Shape& dy, const Shape& weight, const ConvDxAttrs& attrs);
ConvGeometry conv_geometry_dw(const Shape& x, const Shape& dy, const ConvDwAttrs& attrs);

// ceil(a / b) for b > 0 and any a.
constexpr int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

// Windows of a strided kernel along one axis.
struct Window {
  int64_t begin = 0, end = 0;
};
// The kernel taps that fall on pixels [0, size) when the window starts at `start`.
constexpr Window taps_inside(int64_t start, int64_t kernel, int64_t size) {
  const int64_t begin = std::clamp<int64_t>(-start, 0, kernel);
  return {begin, std::clamp<int64_t>(size - start, begin, kernel)};
}
// The windows that cover pixel `at`.
constexpr Window windows_over(int64_t at, int64_t kernel, int64_t stride, int64_t pad,
                              int64_t count) {
  const int64_t begin = std::clamp<int64_t>(ceil_div(at + pad - kernel + 1, stride), 0, count);
  return {begin, std::clamp<int64_t>((at + pad) / stride + 1, begin, count)};
}

// Depthwise kernels (conv_depthwise_cpu.cpp); T as dispatched from args.in[0].
void depthwise_cpu(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work);
void depthwise_dx_cpu(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work);
void depthwise_dw_cpu(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work);

}  // namespace lithe
