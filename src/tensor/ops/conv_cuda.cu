// Which way a convolution is computed: pointwise ones and patch embeddings as matrix products,
// depthwise ones by own kernels, the rest by cuDNN, and by own kernels what it refuses.
#include "tensor/core/tensor.h"
#include "tensor/ops/conv_cuda.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/matmul.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// columns [positions, KH, run] from x, whose windows lie side by side: one run of KW C elements
// for each row of a window.
template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    gather_tiles_kernel(const ConvGeometry g, int64_t n, const T* x, T* columns) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= n) {
    return;
  }
  const int64_t run = g.kernel_w * g.channels;
  const int64_t line = i / run;  // of a window
  const int64_t window = line / g.kernel_h;
  const int64_t row_of_windows = window / g.out_width;
  const int64_t image = row_of_windows / g.out_height;
  const int64_t top = (row_of_windows - image * g.out_height) * g.kernel_h;
  const int64_t row = top + (line - window * g.kernel_h);
  const int64_t first = (window - row_of_windows * g.out_width) * run + (i - line * run);
  store(columns + i, load<kVector>(x + (image * g.height + row) * g.width * g.channels + first));
}

void gather_tiles(const KernelArgs& args, const ConvGeometry& g, const TensorRef& x,
                  void* columns) {
  const int64_t n = g.positions() * g.patch();
  dispatch_floating(x.dtype, args.op, [&]<typename T>() {
    const auto launch = [&]<int kVector>() {
      gather_tiles_kernel<kVector, T>
          <<<blocks_for(n, int64_t{kThreads} * kVector), kThreads, 0, stream_of(args)>>>(
              g, n, x.as<T>(), static_cast<T*>(columns));
      check_launch(args.op);
    };
    const bool wide =
        g.kernel_w * g.channels % kWide<T> == 0 && g.width * g.channels % kWide<T> == 0;
    wide ? launch.template operator()<kWide<T>>() : launch.template operator()<1>();
  });
}

// The pass as one product of x [positions, patch] (or the gathered patches), weight [O, patch] and
// y [positions, O].
void as_product(const KernelArgs& args, const ConvGeometry& g, ConvPass pass,
                const ConvWorkspaceCuda& work) {
  expect_workspace(args, work.bytes);
  auto* workspace = static_cast<std::byte*>(args.workspace);
  std::array<TensorRef, 3> in{};
  std::copy_n(args.in.begin(), std::min<size_t>(args.in.size(), in.size()), in.begin());
  TensorRef out = args.out[0];
  const Shape x_shape{g.positions(), g.patch()};
  const Shape y_shape{g.positions(), g.out_channels};
  const Shape weight_shape{g.out_channels, g.patch()};
  if (work.columns >= 0) {  // of the forward pass or dw, where x comes first
    gather_tiles(args, g, in[0], workspace + work.columns);
    in[0].data = workspace + work.columns;
  }
  KernelArgs product = args;
  product.workspace = workspace + work.product;
  product.workspace_bytes = work.bytes - work.product;
  product.out = {&out, 1};
  if (pass == ConvPass::forward) {
    in[0].shape = x_shape;
    in[1].shape = weight_shape;
    out.shape = y_shape;
    const Attrs attrs = LinearAttrs{};
    product.in = {in.data(), args.in.size()};
    product.attrs = &attrs;
    linear_cuda(product);
    return;
  }
  MatmulAttrs options;
  if (pass == ConvPass::dx) {  // dy, weight
    in[0].shape = y_shape;
    in[1].shape = weight_shape;
    out.shape = x_shape;
  } else {  // dyᵀ x
    std::swap(in[0], in[1]);
    in[0].shape = y_shape;
    in[1].shape = x_shape;
    out.shape = weight_shape;
    options.transpose_a = true;
  }
  const Attrs attrs = options;
  product.in = {in.data(), 2};
  product.attrs = &attrs;
  matmul_cuda(product);
}

void convolve(const KernelArgs& args, const ConvGeometry& g, ConvPass pass) {
  if (args.out[0].numel() == 0) {
    return;
  }
  const ConvWorkspaceCuda work = conv_workspace_cuda(g, pass, args.out[0].dtype);
  if (work.product >= 0) {
    as_product(args, g, pass, work);
  } else if (g.depthwise()) {
    conv_depthwise_cuda(args, g, pass);
  } else if (!conv_cudnn(args, g, pass)) {
    conv_gemm_cuda(args, g, pass);
  }
}

}  // namespace

void conv2d_cuda(const KernelArgs& args) {
  convolve(args, conv_geometry(args.in[0].shape, args.in[1].shape, args.attr<ConvAttrs>()),
           ConvPass::forward);
}

void conv2d_dx_cuda(const KernelArgs& args) {
  convolve(args, conv_geometry_dx(args.in[0].shape, args.in[1].shape, args.attr<ConvDxAttrs>()),
           ConvPass::dx);
}

void conv2d_dw_cuda(const KernelArgs& args) {
  convolve(args, conv_geometry_dw(args.in[0].shape, args.in[1].shape, args.attr<ConvDwAttrs>()),
           ConvPass::dw);
}

}  // namespace lithe
