// Attention's forward pass: choice of the kernel, and the plain one for fp64, head dims without a
// tensor-core kernel and scales that are not positive.
#include "tensor/ops/attention_cuda.h"
#include "tensor/ops/attention_plain_cuda.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace attention_cuda_kernels {
namespace {

template <typename T>
struct PlainForward {
  Geometry geometry;
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  T* out = nullptr;
  acc_t<T>* lse = nullptr;
  int64_t rows = 0;  // B * N * T
};

// A warp a query. Each lane takes every 32nd key in the scores, every 32nd column in the sums.
template <typename T>
__global__ void __launch_bounds__(kPlainThreads) plain_forward_kernel(const PlainForward<T> p) {
  using A = acc_t<T>;
  const Geometry& geo = p.geometry;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kPlainRows + threadIdx.x / 32;
  if (row >= p.rows) {
    return;
  }
  const int t = static_cast<int>(row % geo.queries);
  const int head = static_cast<int>(row / geo.queries % geo.heads);
  const int64_t b = row / geo.queries / geo.heads;
  const int kv_head = head / geo.group();
  const T* const q = p.q + geo.query_at(b, t, head);
  const Draw draw(geo.dropout);
  const PlainSums<A> sums(geo.dim);
  sums.clear();
  A maximum = -static_cast<A>(INFINITY);
  A denominator = 0;
  const int visible = geo.visible(t);
  for (int first = 0; first < visible; first += 32) {
    const int s = first + lane;
    const bool is_seen = s < visible && geo.sees(b, s) != 0;
    const A score =
        is_seen ? dot<A>(q, p.k + geo.key_at(b, s, kv_head), geo.dim) * static_cast<A>(geo.scale)
                : -static_cast<A>(INFINITY);
    const A top = fmax(maximum, device::warp_reduce(score, device::Largest{}));
    const A from = top == -static_cast<A>(INFINITY) ? A(0) : top;
    const A shrink = exp(maximum - from);
    A probability = exp(score - from);
    maximum = top;
    denominator = denominator * shrink + device::warp_reduce(probability, device::Sum{});
    if (geo.dropout.rng != nullptr && !geo.keeps(draw, b, head, t, s)) {
      probability = 0;
    }
    const int count = min(32, visible - first);
    sums.shrink(shrink);
    for (int i = 0; i < count; ++i) {
      const A weight = __shfl_sync(0xffffffffu, probability, i);
      sums.add(weight, p.v + geo.key_at(b, first + i, kv_head));
    }
  }
  const A kept_scale = static_cast<A>(geo.dropout.kept_scale);
  sums.store(denominator == 0 ? A(0) : kept_scale / denominator, p.out + geo.query_at(b, t, head));
  if (lane == 0) {
    p.lse[row] = denominator == 0 ? -static_cast<A>(INFINITY) : maximum + log(denominator);
  }
}

template <typename T>
void forward_plain(const KernelArgs& args, const Geometry& geometry) {
  const PlainForward<T> params{.geometry = geometry,
                               .q = args.in[0].as<const T>(),
                               .k = args.in[1].as<const T>(),
                               .v = args.in[2].as<const T>(),
                               .out = args.out[0].as<T>(),
                               .lse = args.out[1].as<acc_t<T>>(),
                               .rows = args.out[1].numel()};
  device::launch_shared(args, plain_forward_kernel<T>, device::blocks_for(params.rows, kPlainRows),
                        kPlainThreads, PlainSums<acc_t<T>>::bytes(args, geometry.dim, 1), params);
}

int narrow_size(const KernelArgs& args, int64_t size) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (size > kMost) {
    throw ShapeError(args.op, "a dimension of {} is above {}; use a smaller one", size, kMost);
  }
  return static_cast<int>(size);
}

}  // namespace

Geometry geometry_of(const KernelArgs& args, const AttentionAttrs& attrs, size_t mask, size_t rng) {
  const Shape& q = args.in[0].shape;
  const Shape& k = args.in[1].shape;
  Geometry out{.queries = narrow_size(args, q[1]),
               .keys = narrow_size(args, k[1]),
               .heads = narrow_size(args, q[2]),
               .kv_heads = narrow_size(args, k[2]),
               .dim = narrow_size(args, q[3]),
               .scale = attrs.scale,
               .causal = attrs.causal};
  if (args.in.size() > mask) {
    out.key_mask = args.in[mask].as<const bool>();
  }
  if (attrs.dropout > 0) {
    out.dropout = {.rng = args.in[rng].as<const int64_t>(),
                   .key = attrs.dropout_key,
                   .threshold = dropout_threshold(attrs.dropout, kAttentionDropoutBits),
                   .kept_scale = dropout_scale(attrs.dropout, kAttentionDropoutBits)};
  }
  return out;
}

}  // namespace attention_cuda_kernels

void attention_cuda(const KernelArgs& args) {
  using namespace attention_cuda_kernels;
  if (args.in[0].numel() == 0) {
    return;
  }
  const auto attrs = args.attr<AttentionAttrs>();
  const Geometry geometry = geometry_of(args, attrs, 3, 4);
  const DType dtype = args.in[0].dtype;
  if (!attention_blocks::on_tensor_cores(dtype, geometry.dim, attrs.scale)) {
    dispatch_floating(dtype, args.op, [&]<typename T>() { forward_plain<T>(args, geometry); });
  } else if (dtype == DType::f32) {
    forward_single(args, geometry, args.numerics.tf32);
  } else {
    forward_half(args, geometry);
  }
}

}  // namespace lithe
