// Attention's backward pass: choice of the kernel, and the plain ones for fp64, head dims without a
// tensor-core kernel and scales that are not positive.
#include "tensor/ops/attention_plain_cuda.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace attention_cuda_kernels {
namespace {

template <typename T>
struct PlainBackward {
  using A = acc_t<T>;
  Geometry geometry;
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  const T* out = nullptr;  // null: delta is derived
  const A* lse = nullptr;
  const T* dout = nullptr;
  A* delta = nullptr;  // [B, N, T], see attention.h
  AttentionGradients<T> to{};
  int64_t query_rows = 0;  // B * N * T
  int64_t key_rows = 0;    // B * K * S

  // The probability of [b, head, t, s] and its gradient; dropout scales both by `keep`.
  struct Weight {
    A probability = 0;
    A keep = 0;
    A dp = 0;
  };
  __device__ Weight weight(int64_t b, int head, int t, int s, const Draw& draw) const {
    const Geometry& geo = geometry;
    const int64_t row = (b * geo.heads + head) * geo.queries + t;
    const A of_row = lse[row];
    if (s >= geo.visible(t) || geo.sees(b, s) == 0 || of_row == -static_cast<A>(INFINITY)) {
      return {};
    }
    const A scale = static_cast<A>(geo.scale);
    const int64_t at = geo.query_at(b, t, head);
    const int64_t from = geo.key_at(b, s, head / geo.group());
    const A probability = exp(dot<A>(q + at, k + from, geo.dim) * scale - of_row);
    A keep = 1;
    if (geo.dropout.rng != nullptr) {
      keep = geo.keeps(draw, b, head, t, s) ? static_cast<A>(geo.dropout.kept_scale) : A(0);
    }
    return {probability, keep, dot<A>(dout + at, v + from, geo.dim) * keep};
  }
  // The probability with dropout, and the gradient of its score.
  struct Pair {
    A kept = 0;
    A ds = 0;
  };
  __device__ Pair pair(int64_t b, int head, int t, int s, const Draw& draw) const {
    const Weight own = weight(b, head, t, s, draw);
    const A of_row = delta[(b * geometry.heads + head) * geometry.queries + t];
    return {own.probability * own.keep,
            own.probability * (own.dp - of_row) * static_cast<A>(geometry.scale)};
  }
};

__device__ int64_t plain_row() {
  return static_cast<int64_t>(blockIdx.x) * kPlainRows + threadIdx.x / 32;
}

// A warp a query: its delta.
template <typename T>
__global__ void __launch_bounds__(kPlainThreads) plain_delta_kernel(const PlainBackward<T> p) {
  using A = acc_t<T>;
  const Geometry& geo = p.geometry;
  const int64_t row = plain_row();
  if (row >= p.query_rows) {
    return;
  }
  const auto t = static_cast<int>(row % geo.queries);
  const auto head = static_cast<int>(row / geo.queries % geo.heads);
  const int64_t b = row / geo.queries / geo.heads;
  const auto lane = static_cast<int>(threadIdx.x % 32);
  if (p.out == nullptr) {
    const Draw draw(geo.dropout);
    A total = 0;
    A weighted = 0;
    for (int s = lane; s < geo.visible(t); s += 32) {
      const auto own = p.weight(b, head, t, s, draw);
      total += own.probability;
      weighted += own.probability * own.dp;
    }
    total = device::warp_reduce(total, device::Sum{});
    weighted = device::warp_reduce(weighted, device::Sum{});
    if (lane == 0) {
      p.delta[row] = total > 0 ? weighted / total : A(0);
    }
    return;
  }
  const int64_t at = geo.query_at(b, t, head);
  A sum = 0;
  for (int i = lane; i < geo.dim; i += 32) {
    sum += device::widen<A>(p.dout[at + i]) * device::widen<A>(p.out[at + i]);
  }
  sum = device::warp_reduce(sum, device::Sum{});
  if (lane == 0) {
    p.delta[row] = sum;
  }
}

// A warp a query: dq.
template <typename T>
__global__ void __launch_bounds__(kPlainThreads) plain_dq_kernel(const PlainBackward<T> p) {
  using A = acc_t<T>;
  const Geometry& geo = p.geometry;
  const int64_t row = plain_row();
  if (row >= p.query_rows) {
    return;
  }
  const int t = static_cast<int>(row % geo.queries);
  const int head = static_cast<int>(row / geo.queries % geo.heads);
  const int64_t b = row / geo.queries / geo.heads;
  const Draw draw(geo.dropout);
  const PlainSums<A> dq(geo.dim);
  dq.clear();
  const int visible = geo.visible(t);
  for (int first = 0; first < visible; first += 32) {
    const int s = first + static_cast<int>(threadIdx.x % 32);
    const A ds = s < visible ? p.pair(b, head, t, s, draw).ds : A(0);
    const int count = min(32, visible - first);
    for (int i = 0; i < count; ++i) {
      dq.add(__shfl_sync(0xffffffffu, ds, i), p.k + geo.key_at(b, first + i, head / geo.group()));
    }
  }
  dq.store(A(1), p.to.dq + geo.query_at(b, t, head, p.to.query_row));
}

// A warp a key: dk and dv over the queries of all heads that share it.
template <typename T>
__global__ void __launch_bounds__(kPlainThreads) plain_dk_dv_kernel(const PlainBackward<T> p) {
  using A = acc_t<T>;
  const Geometry& geo = p.geometry;
  const int64_t row = plain_row();
  if (row >= p.key_rows) {
    return;
  }
  const int kv_head = static_cast<int>(row % geo.kv_heads);
  const int s = static_cast<int>(row / geo.kv_heads % geo.keys);
  const int64_t b = row / geo.kv_heads / geo.keys;
  const Draw draw(geo.dropout);
  const PlainSums<A> dk(geo.dim, 0);
  const PlainSums<A> dv(geo.dim, 1);
  dk.clear();
  dv.clear();
  for (int head = kv_head * geo.group(); head < (kv_head + 1) * geo.group(); ++head) {
    for (int first = 0; first < geo.queries; first += 32) {
      const int t = first + static_cast<int>(threadIdx.x % 32);
      typename PlainBackward<T>::Pair own{};
      if (t < geo.queries) {
        own = p.pair(b, head, t, s, draw);
      }
      const int count = min(32, geo.queries - first);
      for (int i = 0; i < count; ++i) {
        const int64_t at = geo.query_at(b, first + i, head);
        dk.add(__shfl_sync(0xffffffffu, own.ds, i), p.q + at);
        dv.add(__shfl_sync(0xffffffffu, own.kept, i), p.dout + at);
      }
    }
  }
  const int64_t at = geo.key_at(b, s, kv_head, p.to.key_row);
  if (p.to.dk != nullptr) {
    dk.store(A(1), p.to.dk + at);
  }
  if (p.to.dv != nullptr) {
    dv.store(A(1), p.to.dv + at);
  }
}

template <typename T>
void backward_plain(const KernelArgs& args, const Geometry& geometry) {
  using A = acc_t<T>;
  const auto attrs = args.attr<AttentionGradAttrs>();
  const PlainBackward<T> params{.geometry = geometry,
                                .q = args.in[0].as<const T>(),
                                .k = args.in[1].as<const T>(),
                                .v = args.in[2].as<const T>(),
                                .out = args.in[3].as<const T>(),
                                .lse = args.in[4].as<const A>(),
                                .dout = args.in[5].as<const T>(),
                                .delta = static_cast<A*>(args.workspace),
                                .to = AttentionGradients<T>(args),
                                .query_rows = args.in[4].numel(),
                                .key_rows = args.in[1].numel() / geometry.dim};
  device::expect_workspace(args, params.query_rows * static_cast<int64_t>(sizeof(A)));
  const auto launch = [&](void (*kernel)(PlainBackward<T>), int64_t rows, int vectors) {
    if (rows > 0) {
      device::launch_shared(args, kernel, device::blocks_for(rows, kPlainRows), kPlainThreads,
                            PlainSums<A>::bytes(args, geometry.dim, vectors), params);
    }
  };
  launch(plain_delta_kernel<T>, params.query_rows, 0);
  if (attrs.dq) {
    launch(plain_dq_kernel<T>, params.query_rows, 1);
  }
  if (attrs.dk || attrs.dv) {
    launch(plain_dk_dv_kernel<T>, params.key_rows, 2);
  }
  if (attrs.bias_sums) {
    sum_biases(args);
  }
}

}  // namespace
}  // namespace attention_cuda_kernels

void attention_grad_cuda(const KernelArgs& args) {
  using namespace attention_cuda_kernels;
  const auto attrs = args.attr<AttentionGradAttrs>();
  const Geometry geometry = geometry_of(args, attrs.forward, 6, 7);
  const TensorRef& q = args.in[0];
  const TensorRef& k = args.in[1];
  if (q.numel() == 0 || k.numel() == 0) {
    for (const TensorRef& out : args.out) {
      if (out.numel() > 0) {
        cuda_check(
            cudaMemsetAsync(out.data, 0, static_cast<size_t>(out.bytes()), device::stream_of(args)),
            args.op, "clearing");
      }
    }
    return;
  }
  if (!attention_blocks::on_tensor_cores(q.dtype, geometry.dim, attrs.forward.scale)) {
    dispatch_floating(q.dtype, args.op, [&]<typename T>() { backward_plain<T>(args, geometry); });
  } else if (q.dtype == DType::f32) {
    backward_single(args, geometry, args.numerics.tf32);
  } else {
    backward_half(args, geometry);
  }
}

}  // namespace lithe
