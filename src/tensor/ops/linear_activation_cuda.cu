#include <algorithm>

#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/linear_activation.h"
#include "tensor/ops/product_activation_cuda.h"

namespace lithe {
namespace {

using namespace device;
using Way = ProductThenActivation::Way;

static_assert(kFinishedRows == product::kRows && kFinishedColumns == product::kColumns);

// What the kernel multiplies: a [rows, depth] by b [columns, depth]ᵀ or, kDown, [depth, columns].
struct Operands {
  product::Shape shape;
  const TensorRef& a;
  const TensorRef& b;
  const void* bias;
};

Operands operands_of(const KernelArgs& args, Way way) {
  const Shape& a = args.in[0].shape;
  const bool biased = way == Way::forward && args.in.size() > 2;
  return {{static_cast<int>(a.product(0, a.rank() - 1)), static_cast<int>(args.out[0].shape.back()),
           static_cast<int>(a.back())},
          args.in[0],
          args.in[1],
          biased ? args.in[2].data : nullptr};
}

bool is_finished(const KernelArgs& args, Way way) {
  const Shape& a = args.in[0].shape;
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return is_finished_in_registers(args.in[0].dtype, a.product(0, a.rank() - 1),
                                  args.out[0].shape.back(), a.back()) &&
         is_aligned(args.in[0].data) && is_aligned(args.in[1].data) &&
         is_aligned(operands_of(args, way).bias);
}

// As many clusters as run at the same time.
template <typename Kernel>
int clusters_of(Kernel* kernel, std::string_view op) {
  cuda_check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, product::kBytes),
      op, "asking for shared memory");
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {product::kCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(product::kCluster);
  config.blockDim = dim3(product::kThreads);
  config.dynamicSmemBytes = product::kBytes;
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;
  cuda_check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), op,
             "asking for the clusters");
  return std::max(clusters, 1);
}

template <typename T, bool kDown, typename Epilogue>
void launch(const KernelArgs& args, const Operands& x, const Epilogue& epilogue) {
  auto* const kernel = product::kernel<T, kDown, Epilogue>;
  static const int clusters = clusters_of(kernel, args.op);
  constexpr bool kBf16 = std::is_same_v<T, bf16>;
  const auto& [rows, columns, depth] = x.shape;
  const CUtensorMap a = tensor_map(x.a.data, kBf16, rows, depth, depth, product::kRows, args.op);
  const CUtensorMap b =
      kDown ? tensor_map(x.b.data, kBf16, depth, columns, columns, product::kDepth, args.op)
            : tensor_map(x.b.data, kBf16, columns, depth, depth,
                         product::kColumns / product::kCluster, args.op);
  const auto ceil_div = [](int n, int by) { return (n + by - 1) / by; };
  const int items = ceil_div(ceil_div(rows, product::kRows), product::kCluster) *
                    ceil_div(columns, product::kColumns);
  const auto blocks = static_cast<unsigned>(std::min(items, clusters) * product::kCluster);
  kernel<<<blocks, product::kThreads, product::kBytes, stream_of(args)>>>(
      x.shape, a, b, static_cast<const T*>(x.bias), epilogue);
  check_launch(args.op);
}

template <typename T>
void forward(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesAttrs>();
  const auto parts = args.out.subspan(1);
  const CodeTo of_x = code_to(attrs.x, parts);
  const CodeTo of_y = code_to(attrs.y, parts.subspan(static_cast<size_t>(attrs.x.parts())));
  dispatch_activation(attrs.kind, [&]<Activation kKind>() {
    launch<T, false>(args, operands_of(args, Way::forward),
                     ActivationEpilogue<kKind, T>{args.out[0].as<T>(), of_x, of_y});
  });
}

template <typename T>
void backward(const KernelArgs& args) {
  const auto attrs = args.attr<ActivationCodesGradAttrs>();
  const Operands x = operands_of(args, Way::backward);
  const int64_t tiles = (x.shape.rows + product::kRows - 1) / product::kRows;
  float* partial = nullptr;
  if (attrs.grad.column_sum) {
    expect_workspace(args, tiles * x.shape.columns * int64_t{sizeof(float)});
    partial = static_cast<float*>(args.workspace);
  }
  with_slopes<T>(attrs, args.in.subspan(2), [&](const auto& slopes) {
    launch<T, true>(args, x,
                    ActivationGradEpilogue<std::remove_cvref_t<decltype(slopes)>>{
                        slopes, args.out[0].as<T>(), partial, x.shape.columns});
  });
  if (partial != nullptr) {
    join_chunks_kernel<<<blocks_for(x.shape.columns, 128), 128, 0, stream_of(args)>>>(
        tiles, int64_t{x.shape.columns}, partial, args.out[1].as<T>(), static_cast<T*>(nullptr));
    check_launch(args.op);
  }
}

template <typename F>
void dispatch_half(DType dtype, F&& f) {
  dtype == DType::bf16 ? f.template operator()<bf16>() : f.template operator()<f16>();
}

}  // namespace

void linear_activation_codes_cuda(const KernelArgs& args) {
  if (is_finished(args, Way::forward)) {
    dispatch_half(args.in[0].dtype, [&]<typename T>() { forward<T>(args); });
    return;
  }
  const ProductThenActivation calls(args, Way::forward);
  linear_cuda(calls.product());
  activation_codes_cuda(calls.activation());
}

void prepare_linear_activation_codes_cuda(const KernelArgs& args) {
  if (!is_finished(args, Way::forward)) {
    prepare_linear_cuda(ProductThenActivation(args, Way::forward).product());
  }
}

void matmul_activation_codes_grad_cuda(const KernelArgs& args) {
  if (is_finished(args, Way::backward)) {
    dispatch_half(args.in[0].dtype, [&]<typename T>() { backward<T>(args); });
    return;
  }
  const ProductThenActivation calls(args, Way::backward);
  matmul_cuda(calls.product());
  activation_codes_grad_cuda(calls.activation());
}

void prepare_matmul_activation_codes_grad_cuda(const KernelArgs& args) {
  if (!is_finished(args, Way::backward)) {
    prepare_matmul_cuda(ProductThenActivation(args, Way::backward).product());
  }
}

}  // namespace lithe
