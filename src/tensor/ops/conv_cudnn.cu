// Convolution by cuDNN 9, channels last. A plan (descriptors and the algorithm) is made once a
// shape and kept; of the algorithms that the library's heuristics rank, the first is taken that is
// deterministic and fits into the planned workspace. 16-bit tensors are summed in fp32; fp32 is
// computed in fp32, with TF32 where the graph allows it.
#include <cudnn.h>

#include <array>
#include <map>
#include <mutex>
#include <unordered_map>

#include "tensor/core/philox.h"
#include "tensor/core/tensor.h"
#include "tensor/ops/conv_cuda.h"
#include "tensor/ops/cuda_owned.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe {
namespace {

using namespace device;

// How a convolution's numbers are held and summed.
struct Precision {
  DType dtype = DType::f32;
  Numerics numerics;

  bool exact() const { return dtype == DType::f32 && !numerics.tf32; }
};

void check(cudnnStatus_t status, std::string_view op, std::string_view what) {
  if (status != CUDNN_STATUS_SUCCESS) {
    throw DeviceError(op, "cuDNN: {} failed: {}; see nvidia-smi, or use --device cpu", what,
                      cudnnGetErrorString(status));
  }
}

// The library cannot compute this, as opposed to a failure.
bool is_refusal(cudnnStatus_t status) {
  const int category = status / 1000 * 1000;
  return category == CUDNN_STATUS_BAD_PARAM || category == CUDNN_STATUS_NOT_SUPPORTED;
}

using TensorDescriptor = Owned<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>;
using FilterDescriptor = Owned<cudnnFilterDescriptor_t, cudnnDestroyFilterDescriptor>;
using ConvDescriptor = Owned<cudnnConvolutionDescriptor_t, cudnnDestroyConvolutionDescriptor>;
using ActivationDescriptor = Owned<cudnnActivationDescriptor_t, cudnnDestroyActivationDescriptor>;

template <auto kCreate, typename Descriptor>
void create(Descriptor& descriptor, std::string_view op) {
  typename Descriptor::pointer raw = nullptr;
  check(kCreate(&raw), op, "a descriptor");
  descriptor.reset(raw);
}

cudnnDataType_t data_type(DType dtype) {
  return dtype == DType::bf16  ? CUDNN_DATA_BFLOAT16
         : dtype == DType::f16 ? CUDNN_DATA_HALF
                               : CUDNN_DATA_FLOAT;
}

struct Plan {
  bool refused = true;
  bool fuses_bias = false;  // until the library refuses that too
  TensorDescriptor x, y, bias;
  FilterDescriptor weight;
  ConvDescriptor conv;
  ActivationDescriptor identity;
  int algorithm = 0;  // of the pass's own enumeration
};

struct Key {
  static constexpr size_t kSize = 20;
  std::array<int64_t, kSize> values{};
  bool operator==(const Key&) const = default;
};
struct HashKey {
  size_t operator()(const Key& key) const {
    uint64_t h = 0;
    for (const int64_t v : key.values) {
      h = mix(h, static_cast<uint64_t>(v));
    }
    return h;
  }
};

Key key_of(const ConvGeometry& g, ConvPass pass, const Precision& precision,
           int64_t workspace_bytes, int device) {
  return {{static_cast<int64_t>(pass),
           static_cast<int64_t>(precision.dtype),
           precision.numerics.tf32,
           precision.numerics.deterministic,
           workspace_bytes,
           device,
           g.batch,
           g.height,
           g.width,
           g.channels,
           g.kernel_h,
           g.kernel_w,
           g.out_height,
           g.out_width,
           g.out_channels,
           g.attrs.stride_h,
           g.attrs.stride_w,
           g.attrs.pad_h,
           g.attrs.pad_w,
           g.attrs.groups}};
}

// Whether the pass has elements to sum, and the library can count all that it reads and writes.
bool is_countable(const ConvGeometry& g) {
  const int64_t x = g.batch * g.image();
  const int64_t y = g.positions() * g.out_channels;
  return x > 0 && y > 0 && g.weights() > 0 && std::max({x, y, g.weights()}) <= INT32_MAX;
}

bool describe(Plan& plan, const ConvGeometry& g, DType dtype, std::string_view op) {
  create<cudnnCreateTensorDescriptor>(plan.x, op);
  create<cudnnCreateTensorDescriptor>(plan.y, op);
  create<cudnnCreateTensorDescriptor>(plan.bias, op);
  create<cudnnCreateFilterDescriptor>(plan.weight, op);
  create<cudnnCreateConvolutionDescriptor>(plan.conv, op);
  create<cudnnCreateActivationDescriptor>(plan.identity, op);
  const cudnnDataType_t type = data_type(dtype);
  const auto tensor = [&](const TensorDescriptor& to, int64_t n, int64_t c, int64_t h, int64_t w) {
    return cudnnSetTensor4dDescriptor(to.get(), CUDNN_TENSOR_NHWC, type, static_cast<int>(n),
                                      static_cast<int>(c), static_cast<int>(h),
                                      static_cast<int>(w));
  };
  const std::array<cudnnStatus_t, 7> set = {
      tensor(plan.x, g.batch, g.channels, g.height, g.width),
      tensor(plan.y, g.batch, g.out_channels, g.out_height, g.out_width),
      tensor(plan.bias, 1, g.out_channels, 1, 1),
      cudnnSetFilter4dDescriptor(plan.weight.get(), type, CUDNN_TENSOR_NHWC,
                                 static_cast<int>(g.out_channels), static_cast<int>(g.group_in()),
                                 static_cast<int>(g.kernel_h), static_cast<int>(g.kernel_w)),
      cudnnSetConvolution2dDescriptor(plan.conv.get(), g.attrs.pad_h, g.attrs.pad_w,
                                      g.attrs.stride_h, g.attrs.stride_w, 1, 1,
                                      CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
      cudnnSetConvolutionGroupCount(plan.conv.get(), g.attrs.groups),
      cudnnSetActivationDescriptor(plan.identity.get(), CUDNN_ACTIVATION_IDENTITY,
                                   CUDNN_NOT_PROPAGATE_NAN, 0)};
  return std::all_of(set.begin(), set.end(),
                     [](cudnnStatus_t s) { return s == CUDNN_STATUS_SUCCESS; });
}

// Sets the plan's algorithm from the library's ranking, `usual` being tried last.
template <typename Perf, typename Query, typename Size, typename First, typename Second,
          typename Out>
void choose(Plan& plan, cudnnHandle_t library, const Precision& precision, int64_t workspace_bytes,
            Query query, Size size, First first, Second second, Out out,
            decltype(Perf::algo) usual) {
  const cudnnConvolutionDescriptor_t conv = plan.conv.get();
  const bool exact = precision.exact();
  const cudnnMathType_t preferred = exact ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH;
  constexpr int kMost = 16;
  std::array<Perf, kMost + 1> found{};
  int count = 0;
  if (cudnnSetConvolutionMathType(conv, preferred) != CUDNN_STATUS_SUCCESS ||
      query(library, first, second, conv, out, kMost, &count, found.data()) !=
          CUDNN_STATUS_SUCCESS) {
    count = 0;
  }
  Perf& last = found[static_cast<size_t>(count++)];
  last = Perf{};
  last.algo = usual;
  last.status = CUDNN_STATUS_SUCCESS;
  last.determinism = CUDNN_DETERMINISTIC;
  last.mathType = preferred;
  for (int i = 0; i < count; ++i) {
    const Perf& perf = found[static_cast<size_t>(i)];
    const bool repeats = perf.determinism == CUDNN_DETERMINISTIC;
    if (perf.status != CUDNN_STATUS_SUCCESS || (precision.numerics.deterministic && !repeats)) {
      continue;
    }
    size_t bytes = 0;
    if (cudnnSetConvolutionMathType(conv, exact ? CUDNN_FMA_MATH : perf.mathType) ==
            CUDNN_STATUS_SUCCESS &&
        size(library, first, second, conv, out, perf.algo, &bytes) == CUDNN_STATUS_SUCCESS &&
        bytes <= static_cast<size_t>(workspace_bytes)) {
      plan.algorithm = static_cast<int>(perf.algo);
      plan.refused = false;
      return;
    }
  }
}

Plan make_plan(cudnnHandle_t library, const ConvGeometry& g, ConvPass pass,
               const Precision& precision, int64_t workspace_bytes, std::string_view op) {
  Plan plan;
  if (!describe(plan, g, precision.dtype, op)) {
    return plan;
  }
  const cudnnTensorDescriptor_t x = plan.x.get();
  const cudnnTensorDescriptor_t y = plan.y.get();
  const cudnnFilterDescriptor_t weight = plan.weight.get();
  switch (pass) {
    case ConvPass::forward:
      choose<cudnnConvolutionFwdAlgoPerf_t>(plan, library, precision, workspace_bytes,
                                            cudnnGetConvolutionForwardAlgorithm_v7,
                                            cudnnGetConvolutionForwardWorkspaceSize, x, weight, y,
                                            CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM);
      // The only algorithm that adds a bias and applies nothing else.
      plan.fuses_bias = plan.algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
      break;
    case ConvPass::dx:
      choose<cudnnConvolutionBwdDataAlgoPerf_t>(plan, library, precision, workspace_bytes,
                                                cudnnGetConvolutionBackwardDataAlgorithm_v7,
                                                cudnnGetConvolutionBackwardDataWorkspaceSize,
                                                weight, y, x, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1);
      break;
    case ConvPass::dw:
      choose<cudnnConvolutionBwdFilterAlgoPerf_t>(plan, library, precision, workspace_bytes,
                                                  cudnnGetConvolutionBackwardFilterAlgorithm_v7,
                                                  cudnnGetConvolutionBackwardFilterWorkspaceSize, x,
                                                  y, weight, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1);
      break;
  }
  return plan;
}

// y [n / columns, columns], every row being `row`.
template <int kVector, typename T>
__global__ void __launch_bounds__(256)
    repeat_row_kernel(int64_t n, int64_t columns, const T* row, T* y) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * kVector;
  if (i < n) {
    store(y + i, load<kVector>(row + i % columns));
  }
}

void repeat_row(const KernelArgs& args, const TensorRef& row, const TensorRef& y) {
  const int64_t n = y.numel();
  const int64_t columns = y.shape.back();
  dispatch_floating(y.dtype, args.op, [&]<typename T>() {
    const auto launch = [&]<int kVector>() {
      repeat_row_kernel<kVector, T>
          <<<blocks_for(n, int64_t{256} * kVector), 256, 0, stream_of(args)>>>(
              n, columns, row.as<T>(), y.as<T>());
      check_launch(args.op);
    };
    columns % kWide<T> == 0 ? launch.template operator()<kWide<T>>()
                            : launch.template operator()<1>();
  });
}

// The library's handles and the plans made so far.
class Plans {
 public:
  static Plans& instance() {
    static Plans plans;
    return plans;
  }
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;

  bool run(const KernelArgs& args, const ConvGeometry& g, ConvPass pass) {
    const std::lock_guard lock(mutex_);
    int device = 0;
    cuda_check(cudaGetDevice(&device), args.op, "asking for the device");
    const cudnnHandle_t library = handle_of(device, args.op);
    check(cudnnSetStream(library, stream_of(args)), args.op, "setting the stream");
    const Precision precision{args.out[0].dtype, args.numerics};
    const Key key = key_of(g, pass, precision, args.workspace_bytes, device);
    auto known = plans_.find(key);
    if (known == plans_.end()) {
      known =
          plans_.emplace(key, make_plan(library, g, pass, precision, args.workspace_bytes, args.op))
              .first;
    }
    Plan& plan = known->second;
    if (plan.refused) {
      return false;
    }
    const cudnnStatus_t status = pass == ConvPass::forward ? forward(args, plan, library)
                                                           : backward(args, plan, library, pass);
    if (is_refusal(status)) {
      plan.refused = true;
      cudaGetLastError();  // what the refusal left behind is no failure of the next launch
      return false;
    }
    check(status, args.op, "the convolution");
    return true;
  }

 private:
  Plans() = default;

  // Never destroyed: when a program ends, the driver may be gone before its static objects.
  cudnnHandle_t handle_of(int device, std::string_view op) {
    cudnnHandle_t& handle = handles_[device];
    if (handle == nullptr) {
      check(cudnnCreate(&handle), op, "starting");
    }
    return handle;
  }

  static cudnnStatus_t forward(const KernelArgs& args, Plan& plan, cudnnHandle_t library) {
    const float one = 1;
    const float zero = 0;
    const auto algorithm = static_cast<cudnnConvolutionFwdAlgo_t>(plan.algorithm);
    const auto bytes = static_cast<size_t>(args.workspace_bytes);
    const bool biased = args.in.size() > 2 && args.in[2].data != nullptr;
    void* y = args.out[0].data;
    if (biased && plan.fuses_bias) {
      const cudnnStatus_t status = cudnnConvolutionBiasActivationForward(
          library, &one, plan.x.get(), args.in[0].data, plan.weight.get(), args.in[1].data,
          plan.conv.get(), algorithm, args.workspace, bytes, &zero, plan.y.get(), y,
          plan.bias.get(), args.in[2].data, plan.identity.get(), plan.y.get(), y);
      if (!is_refusal(status)) {
        return status;
      }
      plan.fuses_bias = false;
      cudaGetLastError();
    }
    // Added to what y holds: the sum is rounded once, as the fused one is.
    if (biased) {
      repeat_row(args, args.in[2], args.out[0]);
    }
    return cudnnConvolutionForward(library, &one, plan.x.get(), args.in[0].data, plan.weight.get(),
                                   args.in[1].data, plan.conv.get(), algorithm, args.workspace,
                                   bytes, biased ? &one : &zero, plan.y.get(), y);
  }

  static cudnnStatus_t backward(const KernelArgs& args, const Plan& plan, cudnnHandle_t library,
                                ConvPass pass) {
    const float one = 1;
    const float zero = 0;
    const auto bytes = static_cast<size_t>(args.workspace_bytes);
    const void* dy = args.in[pass == ConvPass::dx ? 0 : 1].data;
    if (pass == ConvPass::dx) {
      return cudnnConvolutionBackwardData(
          library, &one, plan.weight.get(), args.in[1].data, plan.y.get(), dy, plan.conv.get(),
          static_cast<cudnnConvolutionBwdDataAlgo_t>(plan.algorithm), args.workspace, bytes, &zero,
          plan.x.get(), args.out[0].data);
    }
    return cudnnConvolutionBackwardFilter(
        library, &one, plan.x.get(), args.in[0].data, plan.y.get(), dy, plan.conv.get(),
        static_cast<cudnnConvolutionBwdFilterAlgo_t>(plan.algorithm), args.workspace, bytes, &zero,
        plan.weight.get(), args.out[0].data);
  }

  std::mutex mutex_;
  std::map<int, cudnnHandle_t> handles_;
  std::unordered_map<Key, Plan, HashKey> plans_;
};

}  // namespace

bool conv_cudnn(const KernelArgs& args, const ConvGeometry& g, ConvPass pass) {
  if (args.out[0].dtype == DType::f64 || !is_countable(g)) {
    return false;
  }
  return Plans::instance().run(args, g, pass);
}

}  // namespace lithe
