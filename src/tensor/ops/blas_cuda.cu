#include "tensor/ops/blas_cuda.h"

#include <cublasLt.h>

#include <array>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tensor/core/cuda_check.h"
#include "tensor/core/philox.h"
#include "tensor/ops/blas_algorithms_cuda.h"
#include "tensor/ops/cuda_owned.h"

namespace lithe::blas_cuda {
namespace {

using device::Owned;

void check(cublasStatus_t status, std::string_view op, std::string_view what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw DeviceError(op, "cuBLASLt: {} failed: {}; see nvidia-smi, or use --device cpu", what,
                      cublasLtGetStatusString(status));
  }
}

// The library cannot compute this, as opposed to a failure.
bool is_refusal(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
         status == CUBLAS_STATUS_ARCH_MISMATCH;
}

using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

// The library's type has no name of its own, which containers need under nvcc.
struct Algorithm {
  cublasLtMatmulAlgo_t raw{};
};

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

bool is_half(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

cublasComputeType_t compute_type(const Gemm& g) {
  if (g.dtype == DType::f64) {
    return CUBLAS_COMPUTE_64F;
  }
  return g.dtype == DType::f32 && g.numerics.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                  : CUBLAS_COMPUTE_32F;
}

std::array<int64_t, 20> numbers_of(const Gemm& g) {
  return {static_cast<int64_t>(g.dtype),
          g.transpose_a,
          g.transpose_b,
          static_cast<int64_t>(g.epilogue),
          g.adds,
          g.optional,
          g.numerics.tf32,
          g.numerics.deterministic,
          g.m,
          g.n,
          g.k,
          g.lda,
          g.ldb,
          g.ldc,
          g.batch,
          g.stride_a,
          g.stride_b,
          g.stride_c,
          g.stride_bias,
          g.alignment_a};
}

struct Key {
  Gemm shape;
  int64_t workspace_bytes = 0;
  int device = 0;

  bool operator==(const Key&) const = default;
};
struct HashKey {
  size_t operator()(const Key& key) const {
    uint64_t h = mix(static_cast<uint64_t>(key.device), static_cast<uint64_t>(key.workspace_bytes));
    for (const int64_t v : numbers_of(key.shape)) {
      h = mix(h, static_cast<uint64_t>(v));
    }
    return h;
  }
};

// The product's name in the cache: everything that the algorithms to choose from depend on.
std::string name_of(const Gemm& g, int64_t workspace_bytes) {
  constexpr std::string_view kEpilogues[] = {"plain", "bias", "gelu_bias", "row_sum"};
  return fmt::format(
      "{}{}{} {}{}{} {}x{}x{} ld {} {} {} batch {} {} {} {} {}{}{} workspace {}",
      dtype_name(g.dtype), g.numerics.tf32 ? " tf32" : "",
      g.numerics.deterministic ? "" : " any_order", g.transpose_a ? "t" : "n",
      g.transpose_b ? "t " : "n ", g.adds ? "add" : kEpilogues[static_cast<size_t>(g.epilogue)],
      g.m, g.n, g.k, g.lda, g.ldb, g.ldc, g.batch, g.stride_a, g.stride_b, g.stride_c,
      g.stride_bias, g.optional ? " optional" : "",
      g.alignment_a == kAlignment ? "" : fmt::format(" align {}", g.alignment_a), workspace_bytes);
}

// A product as the library wants it described, and the algorithm chosen for it.
struct Plan {
  Operation operation;
  Layout a, b, c;
  std::optional<Algorithm> algorithm;  // none: refused, or slower than passes of their own
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
template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t name, const T& value,
         std::string_view op) {
  check(cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value), op,
        "a preference");
}

void set_pointers(const Plan& plan, const Gemm& g, const Operands& x, std::string_view op) {
  if (g.epilogue == Epilogue::bias || g.epilogue == Epilogue::gelu_bias) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.bias, op);
  }
  if (g.epilogue == Epilogue::gelu_bias) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, x.pre_activation, op);
  }
  if (g.epilogue == Epilogue::row_sum) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.row_sum, op);
  }
}

Plan describe(const Gemm& g, const Operands& x, std::string_view op) {
  const cudaDataType_t type = data_type(g.dtype);
  Plan plan;
  cublasLtMatmulDesc_t raw = nullptr;
  check(cublasLtMatmulDescCreate(&raw, compute_type(g),
                                 g.dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F),
        op, "a product");
  plan.operation.reset(raw);
  // Read by columns, cᵀ = op(b)ᵀ op(a)ᵀ is what is asked for: the operands change places, and so a
  // vector [n] lies along the library's rows, and the sums over op(a) are those over its second
  // operand.
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, op);
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, op);
  if (g.epilogue != Epilogue::none) {
    const cublasLtEpilogue_t epilogue = g.epilogue == Epilogue::bias ? CUBLASLT_EPILOGUE_BIAS
                                        : g.epilogue == Epilogue::row_sum
                                            ? CUBLASLT_EPILOGUE_BGRADB
                                            : CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue, op);
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(type), op);
    if (g.epilogue == Epilogue::gelu_bias) {
      set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, g.ldc, op);
    }
    if (g.batch > 1) {
      set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, g.stride_bias, op);
    }
    set_pointers(plan, g, x, op);
  }
  plan.a = make_layout(type, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, g.batch,
                       g.stride_a, op);
  plan.b = make_layout(type, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, g.batch,
                       g.stride_b, op);
  plan.c = make_layout(type, g.m, g.n, g.ldc, g.batch, g.stride_c, op);
  return plan;
}

// Whether the epilogue is worth asking for; where not, passes of their own do its work.
bool is_offered(const Gemm& g) {
  switch (g.epilogue) {
    case Epilogue::gelu_bias:
      // Its tanh is the hardware's approximation: good for 16 bits. The library wants rows of the
      // kept activations aligned to 8.
      return is_half(g.dtype) && g.ldc % 8 == 0;
    case Epilogue::row_sum:
      return g.dtype != DType::f64;
    default:
      return true;
  }
}

constexpr size_t kMostProposals = 16;

// The library's proposals, best first by its own reckoning.
std::vector<Algorithm> proposals(cublasLtHandle_t library, const Gemm& g, const Plan& plan,
                                 int64_t workspace_bytes, size_t most, std::string_view op) {
  cublasLtMatmulPreference_t raw = nullptr;
  check(cublasLtMatmulPreferenceCreate(&raw), op, "a preference");
  const Preference preference(raw);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes),
      op);
  // The library's second operand, as the operands change places.
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(g.alignment_a),
      op);
  // A product that is split along k is summed in fp32, never in the 16-bit output.
  const bool any = !g.numerics.deterministic && !is_half(g.dtype);
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(any ? CUBLASLT_REDUCTION_SCHEME_MASK
                                : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE),
      op);
  std::array<cublasLtMatmulHeuristicResult_t, kMostProposals> found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      library, plan.operation.get(), plan.b.get(), plan.a.get(), plan.c.get(), plan.c.get(),
      preference.get(), static_cast<int>(most), found.data(), &count);
  if (status != CUBLAS_STATUS_SUCCESS && !is_refusal(status)) {
    check(status, op, "choosing an algorithm");
  }
  std::vector<Algorithm> out;
  for (int i = 0; i < count && status == CUBLAS_STATUS_SUCCESS; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = found[static_cast<size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS) {
      out.push_back({result.algo});
    }
  }
  return out;
}

std::string name_of(const Algorithm& algorithm) {
  std::string out;
  for (const uint64_t word : algorithm.raw.data) {
    out += fmt::format("{:016x}", word);
  }
  return out;
}

bool is_recorded(cudaStream_t stream, std::string_view op) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda_check(cudaStreamIsCapturing(stream, &status), op, "asking the stream");
  return status != cudaStreamCaptureStatusNone;
}

// Fewer multiplications than this are over before a choice could matter.
bool is_small(const Gemm& g) {
  constexpr double kSmall = 1 << 24;
  return static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) *
             static_cast<double>(g.batch) <
         kSmall;
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

  bool run(const Gemm& g, const Operands& x, const Launch& launch) {
    const std::lock_guard lock(mutex_);
    const Key key = key_of(g, launch);
    auto known = plans_.find(key);
    if (known == plans_.end()) {
      known = plans_.emplace(key, make_plan(key, x, launch, false, {})).first;
    }
    Plan& plan = known->second;
    if (!plan.algorithm) {
      return false;
    }
    const cublasStatus_t status = multiply(plan, g, x, *plan.algorithm, launch);
    if (is_refusal(status) && is_optional(g)) {
      plan.algorithm.reset();
      cudaGetLastError();  // what the refusal left behind is no failure of the next launch
      return false;
    }
    check(status, launch.op, "the product");
    return true;
  }

  void prepare(const Gemm& g, const Operands& x, const Launch& launch,
               const std::function<void()>& rival) {
    const std::lock_guard lock(mutex_);
    const Key key = key_of(g, launch);
    if (!plans_.contains(key)) {
      Plan plan = make_plan(key, x, launch, !is_recorded(launch.stream, launch.op), rival);
      plans_.emplace(key, std::move(plan));
    }
  }

 private:
  Plans() {
    cublasLtHandle_t raw = nullptr;
    check(cublasLtCreate(&raw), "matmul", "starting");
    library_.reset(raw);
  }

  static bool is_optional(const Gemm& g) {
    return g.optional || g.epilogue == Epilogue::gelu_bias || g.epilogue == Epilogue::row_sum ||
           (g.epilogue == Epilogue::bias && g.batch > 1);
  }

  static Key key_of(const Gemm& g, const Launch& launch) {
    Key key{g, launch.workspace_bytes, 0};
    cuda_check(cudaGetDevice(&key.device), launch.op, "asking for the device");
    return key;
  }

  Plan make_plan(const Key& key, const Operands& x, const Launch& launch, bool may_measure,
                 const std::function<void()>& rival) {
    const Gemm& g = key.shape;
    if (!is_offered(g)) {
      return {};
    }
    Plan plan = describe(g, x, launch.op);
    const std::vector<Algorithm> found = proposals(library_.get(), g, plan, key.workspace_bytes,
                                                   is_small(g) ? 1 : kMostProposals, launch.op);
    if (found.empty()) {
      if (is_optional(g)) {
        return {};
      }
      throw DeviceError(launch.op,
                        "cuBLASLt has no algorithm for {} products of {} [{}, {}] by [{}, {}]; use "
                        "--device cpu",
                        g.batch, dtype_name(g.dtype), g.m, g.k, g.k, g.n);
    }
    int chosen = 0;
    if (!is_small(g)) {
      std::vector<std::string> names;
      for (const Algorithm& algorithm : found) {
        names.push_back(name_of(algorithm));
      }
      const auto run = [&](int i) {
        const cublasStatus_t status = multiply(plan, g, x, found[static_cast<size_t>(i)], launch);
        if (is_refusal(status)) {
          cudaGetLastError();
          return false;
        }
        check(status, launch.op, "the product");
        return true;
      };
      chosen = choices_.choose({.problem = name_of(g, key.workspace_bytes),
                                .names = names,
                                .run = run,
                                .rival = rival,
                                .may_do_without = is_optional(g),
                                .stream = launch.stream,
                                .op = launch.op},
                               key.device, may_measure);
    }
    if (chosen != kRival) {
      plan.algorithm = found[static_cast<size_t>(chosen)];
    }
    return plan;
  }

  cublasStatus_t multiply(const Plan& plan, const Gemm& g, const Operands& x,
                          const Algorithm& algorithm, const Launch& launch) {
    set_pointers(plan, g, x, launch.op);
    const bool wide = g.dtype == DType::f64;
    const auto narrow_alpha = static_cast<float>(x.alpha);
    const float narrow_beta = g.adds ? 1 : 0;
    const double wide_beta = narrow_beta;
    const void* alpha = wide ? static_cast<const void*>(&x.alpha) : &narrow_alpha;
    const void* beta = wide ? static_cast<const void*>(&wide_beta) : &narrow_beta;
    return cublasLtMatmul(library_.get(), plan.operation.get(), alpha, x.b, plan.b.get(), x.a,
                          plan.a.get(), beta, g.adds ? x.addend : x.c, plan.c.get(), x.c,
                          plan.c.get(), &algorithm.raw, launch.workspace,
                          static_cast<size_t>(launch.workspace_bytes), launch.stream);
  }

  std::recursive_mutex mutex_;  // a rival runs products too
  Library library_;
  std::unordered_map<Key, Plan, HashKey> plans_;
  Choices choices_;
};

}  // namespace

bool Gemm::operator==(const Gemm& other) const { return numbers_of(*this) == numbers_of(other); }

bool gemm(const Gemm& shape, const Operands& operands, const Launch& launch) {
  return Plans::instance().run(shape, operands, launch);
}

void prepare(const Gemm& shape, const Operands& operands, const Launch& launch,
             const std::function<void()>& rival) {
  Plans::instance().prepare(shape, operands, launch, rival);
}

}  // namespace lithe::blas_cuda
