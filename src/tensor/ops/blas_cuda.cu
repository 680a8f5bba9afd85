#include "tensor/ops/blas_cuda.h"

#include <cublasLt.h>

#include <memory>
#include <mutex>
#include <type_traits>
#include <unordered_map>

#include "tensor/core/error.h"
#include "tensor/core/philox.h"

namespace lithe::blas_cuda {
namespace {

void check(cublasStatus_t status, std::string_view op, std::string_view what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw DeviceError(op, "cuBLASLt: {} failed: {}; see nvidia-smi, or use --device cpu", what,
                      cublasLtGetStatusString(status));
  }
}

template <auto kDestroy>
struct Destroy {
  template <typename T>
  void operator()(T* object) const {
    kDestroy(object);
  }
};
template <typename Handle, auto kDestroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<kDestroy>>;

using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDA_R_64F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

struct Plan {
  Operation operation;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algorithm{};
};

struct Key {
  Gemm shape;
  int64_t workspace_bytes = 0;
  int device = 0;

  bool operator==(const Key&) const = default;
};
struct HashKey {
  size_t operator()(const Key& key) const {
    const Gemm& g = key.shape;
    uint64_t h = static_cast<uint64_t>(g.dtype) * 8 + (g.transpose_a ? 4 : 0) +
                 (g.transpose_b ? 2 : 0) + (g.biased ? 1 : 0);
    for (const int64_t v : {g.m, g.n, g.k, g.lda, g.ldb, g.ldc, g.batch, g.stride_a, g.stride_b,
                            g.stride_c, key.workspace_bytes, static_cast<int64_t>(key.device)}) {
      h = mix(h, static_cast<uint64_t>(v));
    }
    return h;
  }
};

// cuBLASLt counts in columns: a row-major matrix [rows, columns] is its [columns, rows].
Layout make_layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t ld, int64_t batch,
                   int64_t stride, std::string_view op) {
  cublasLtMatrixLayout_t raw = nullptr;
  check(cublasLtMatrixLayoutCreate(&raw, type, static_cast<uint64_t>(columns),
                                   static_cast<uint64_t>(rows), ld),
        op, "a matrix layout");
  Layout layout(raw);
  if (batch > 1) {
    const auto count = static_cast<int32_t>(batch);
    check(cublasLtMatrixLayoutSetAttribute(raw, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                           sizeof count),
          op, "a batch count");
    check(cublasLtMatrixLayoutSetAttribute(raw, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                           &stride, sizeof stride),
          op, "a batch stride");
  }
  return layout;
}

template <typename T>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t name, const T& value,
         std::string_view op) {
  check(cublasLtMatmulDescSetAttribute(operation.get(), name, &value, sizeof value), op,
        "an attribute of the product");
}

Plan make_plan(cublasLtHandle_t library, const Gemm& g, int64_t workspace_bytes, const void* bias,
               std::string_view op) {
  const cudaDataType_t type = data_type(g.dtype);
  const bool wide = g.dtype == DType::f64;
  Plan plan;
  cublasLtMatmulDesc_t raw = nullptr;
  check(cublasLtMatmulDescCreate(&raw, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                 wide ? CUDA_R_64F : CUDA_R_32F),
        op, "a product");
  plan.operation.reset(raw);
  // Read by columns, cᵀ = op(b)ᵀ op(a)ᵀ is what is asked for: the operands change places.
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, op);
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, op);
  if (g.biased) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS, op);
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias, op);
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(type), op);
  }
  plan.a = make_layout(type, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, g.batch,
                       g.stride_a, op);
  plan.b = make_layout(type, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, g.batch,
                       g.stride_b, op);
  plan.c = make_layout(type, g.m, g.n, g.ldc, g.batch, g.stride_c, op);

  cublasLtMatmulPreference_t raw_preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&raw_preference), op, "a preference");
  const Preference preference(raw_preference);
  const auto bytes = static_cast<uint64_t>(workspace_bytes);
  check(cublasLtMatmulPreferenceSetAttribute(
            raw_preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
        op, "the workspace limit");
  // A product that is split along k is summed in fp32, never in the 16-bit output.
  const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  check(cublasLtMatmulPreferenceSetAttribute(
            raw_preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes),
        op, "the reduction scheme");
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(library, plan.operation.get(), plan.b.get(), plan.a.get(),
                                     plan.c.get(), plan.c.get(), raw_preference, 1, &found, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
    throw DeviceError(op,
                      "cuBLASLt has no algorithm for {} products of {} [{}, {}] by [{}, {}] ({}); "
                      "use --device cpu",
                      g.batch, dtype_name(g.dtype), g.m, g.k, g.k, g.n,
                      cublasLtGetStatusString(status));
  }
  plan.algorithm = found.algo;
  return plan;
}

// The library's handle and the plans made so far.
class Plans {
 public:
  static Plans& instance() {
    static Plans plans;
    return plans;
  }
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;

  void run(const Gemm& shape, const Operands& x, void* workspace, int64_t workspace_bytes,
           cudaStream_t stream, std::string_view op) {
    const std::lock_guard lock(mutex_);
    const Plan& plan = plan_of(shape, workspace_bytes, x.bias, op);
    if (shape.biased) {
      set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.bias, op);
    }
    const auto narrow_alpha = static_cast<float>(x.alpha);
    const float narrow_beta = 0;
    const double wide_beta = 0;
    const bool wide = shape.dtype == DType::f64;
    const void* alpha = wide ? static_cast<const void*>(&x.alpha) : &narrow_alpha;
    const void* beta = wide ? static_cast<const void*>(&wide_beta) : &narrow_beta;
    check(cublasLtMatmul(library_.get(), plan.operation.get(), alpha, x.b, plan.b.get(), x.a,
                         plan.a.get(), beta, x.c, plan.c.get(), x.c, plan.c.get(), &plan.algorithm,
                         workspace, static_cast<size_t>(workspace_bytes), stream),
          op, "the product");
  }

 private:
  Plans() {
    cublasLtHandle_t raw = nullptr;
    check(cublasLtCreate(&raw), "matmul", "starting");
    library_.reset(raw);
  }
  const Plan& plan_of(const Gemm& shape, int64_t workspace_bytes, const void* bias,
                      std::string_view op) {
    Key key{shape, workspace_bytes, 0};
    cudaGetDevice(&key.device);
    const auto known = plans_.find(key);
    if (known != plans_.end()) {
      return known->second;
    }
    return plans_.emplace(key, make_plan(library_.get(), shape, workspace_bytes, bias, op))
        .first->second;
  }

  std::mutex mutex_;
  Library library_;
  std::unordered_map<Key, Plan, HashKey> plans_;
};

}  // namespace

void gemm(const Gemm& shape, const Operands& operands, void* workspace, int64_t workspace_bytes,
          cudaStream_t stream, std::string_view op) {
  Plans::instance().run(shape, operands, workspace, workspace_bytes, stream, op);
}

}  // namespace lithe::blas_cuda
