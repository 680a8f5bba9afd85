#include <cmath>
#include <cstring>

#include "tensor/ops/update_cpu.h"

namespace lithe {
namespace {

template <typename T, typename G>
struct Sgd {
  using A = acc_t<T>;
  T* w;
  const G* gradient;  // of element i at i - shift
  A* velocity;        // null: no momentum
  A lr, scale, decay, momentum;
  A own, along;  // the step is along own g' + along velocity: nesterov's, or the velocity alone
  bool first;
  ChangeRule<A> rule;
  int64_t shift = 0;

  template <bool kMeasured>
  ChunkSums run(int64_t begin, int64_t end) const {
    return velocity != nullptr ? run<kMeasured, true>(begin, end)
                               : run<kMeasured, false>(begin, end);
  }
  template <bool kMeasured, bool kMomentum>
  ChunkSums run(int64_t begin, int64_t end) const {
    double squares = 0;
    double moved = 0;
    double size = 0;
#pragma omp simd reduction(+ : squares, moved, size)
    for (int64_t i = begin; i < end; ++i) {
      const A arrived = static_cast<A>(gradient[i - shift]);
      const A old = static_cast<A>(w[i]);
      const A g = scale * arrived + decay * old;
      A direction = g;
      if constexpr (kMomentum) {
        const A now = first ? g : momentum * velocity[i] + g;
        velocity[i] = now;
        direction = own * g + along * now;
      }
      const A w_new = old - lr * direction;
      store(w[i], w_new);
      if constexpr (kMeasured) {
        squares += static_cast<double>(arrived) * static_cast<double>(arrived);
        moved += static_cast<double>(rule.magnitude(old - w_new) / rule.under(old));
        size += static_cast<double>(rule.magnitude(old));
      }
    }
    return {squares, moved, size};
  }
};

}  // namespace

void assign_cpu(const KernelArgs& args) { convert_into(args.out[0], args.in[1], args.op); }

void sgd_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<SgdAttrs>();
  const bool has_momentum = attrs.momentum != 0;
  bool first = false;
  if (has_momentum) {
    int64_t& step = *args.out[2].as<int64_t>();
    first = step == 0;
    ++step;
  }
  dispatch_update(args.in[0].dtype, args.in[1].dtype, args.op, [&]<typename T, typename G>() {
    using A = acc_t<T>;
    run_gradient_update<G>(
        args, 6, attrs.measures, has_momentum ? 6 : 4,
        Sgd<T, G>{.w = args.out[0].as<T>(),
                  .gradient = args.in[1].as<G>(),
                  .velocity = has_momentum ? args.out[1].as<A>() : nullptr,
                  .lr = static_cast<A>(scalar_of(args.in[4])),
                  .scale = static_cast<A>(gradient_scale(args.in[5])),
                  .decay = static_cast<A>(attrs.weight_decay),
                  .momentum = static_cast<A>(attrs.momentum),
                  .own = attrs.nesterov ? A(1) : A(0),
                  .along = attrs.nesterov ? static_cast<A>(attrs.momentum) : A(1),
                  .first = first,
                  .rule = ChangeRule<A>(attrs.measures)});
  });
}

void accumulate_cpu(const KernelArgs& args) {
  const TensorRef& sum = args.out[0];
  const TensorRef& gradient = args.in[1];
  // Here the sum may be the wider one.
  dispatch_update(gradient.dtype, sum.dtype, args.op, [&]<typename T, typename S>() {
    const T* x = gradient.as<T>();
    S* s = sum.as<S>();
    parallel_for(sum.numel(), 2, [=](int64_t begin, int64_t end) {
      using A = acc_t<T>;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        store(s[i], static_cast<A>(s[i]) + static_cast<A>(x[i]));
      }
    });
  });
}

void clear_cpu(const KernelArgs& args) {
  std::byte* data = args.out[0].as<std::byte>();
  parallel_for(args.out[0].bytes(), 1, [=](int64_t begin, int64_t end) {
    std::memset(data + begin, 0, static_cast<size_t>(end - begin));
  });
}

void sum_squares_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const GradientRows<T> rows(args, args.in[0], 1);
    const auto squares_of = [](const T* x, int64_t count) {
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < count; ++i) {
        const double value = static_cast<double>(static_cast<acc_t<T>>(x[i]));
        squares += value * value;
      }
      return ChunkSums{.squares = squares};
    };
    const auto sum = [&](int64_t begin, int64_t end) {
      if (rows.rows == nullptr) {
        return squares_of(rows.gradient + begin, end - begin);
      }
      std::array<T, kUpdateChunk> whole;
      rows.expand(begin, end, whole.data());
      return squares_of(whole.data(), end - begin);
    };
    const int64_t n = rows.rows == nullptr ? args.in[0].numel() : args.in[1].numel() * rows.hidden;
    write_scalar(args.out[0], sum_chunks(args, n, 1, sum).squares);
  });
}

void clip_factor_cpu(const KernelArgs& args) {
  double sum = 0;
  for (const TensorRef& t : args.in) {
    sum += scalar_of(t);
  }
  const double norm = std::sqrt(sum);
  const double factor = args.attr<ClipAttrs>().max_norm / (norm + 1e-6);
  *args.out[0].as<float>() = static_cast<float>(norm);
  *args.out[1].as<float>() = static_cast<float>(factor > 1 ? 1 : factor);  // NaN passes
}

}  // namespace lithe
