#include <array>
#include <cmath>

#include "tensor/ops/moment_codes.h"
#include "tensor/ops/update_cpu.h"

namespace lithe {
namespace {

// Both conventions are w = (w before - rate m / (sqrt(v) root + eps)) after.
template <typename A>
struct Factors {
  A scale, beta1, beta2, rest1, rest2, eps, rate, root, before, after;
};

template <typename A>
Factors<A> factors_of(const KernelArgs& args, const AdamWAttrs& attrs, int64_t step) {
  const double lr = scalar_of(args.in[5]);
  const double correction1 = 1 - std::pow(attrs.beta1, static_cast<double>(step));
  const double root2 = std::sqrt(1 - std::pow(attrs.beta2, static_cast<double>(step)));
  const bool corrected = attrs.epsilon == AdamEpsilon::corrected;
  const double decay = 1 - lr * attrs.weight_decay;
  return {.scale = static_cast<A>(gradient_scale(args.in[6])),
          .beta1 = static_cast<A>(attrs.beta1),
          .beta2 = static_cast<A>(attrs.beta2),
          .rest1 = static_cast<A>(1 - attrs.beta1),
          .rest2 = static_cast<A>(1 - attrs.beta2),
          .eps = static_cast<A>(attrs.eps),
          .rate = static_cast<A>(corrected ? lr / correction1 : lr * root2 / correction1),
          .root = static_cast<A>(corrected ? 1 / root2 : 1),
          .before = static_cast<A>(corrected ? decay : 1),
          .after = static_cast<A>(corrected ? 1 : decay)};
}

// kGradient: whether there is one; else it is zero.
template <typename T, typename G, bool kGradient>
struct AdamW {
  using A = acc_t<T>;
  T* w;
  const G* gradient;  // of element i at i - shift
  A* m;
  A* v;
  Factors<A> f;
  ChangeRule<A> rule;
  int64_t shift = 0;

  template <bool kMeasured>
  ChunkSums run(int64_t begin, int64_t end) const {
    double squares = 0;
    double moved = 0;
    double size = 0;
#pragma omp simd reduction(+ : squares, moved, size)
    for (int64_t i = begin; i < end; ++i) {
      A arrived = 0;
      if constexpr (kGradient) {
        arrived = static_cast<A>(gradient[i - shift]);
      }
      const A old = static_cast<A>(w[i]);
      const A g = f.scale * arrived;
      const A m_new = f.beta1 * m[i] + f.rest1 * g;
      const A v_new = f.beta2 * v[i] + f.rest2 * g * g;
      const A step_size = f.rate * m_new / (std::sqrt(v_new) * f.root + f.eps);
      const A w_new = (f.before * old - step_size) * f.after;
      m[i] = m_new;
      v[i] = v_new;
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

// The same with moments in 8 bits.
template <typename T, typename G, bool kGradient>
struct BlockwiseAdamW {
  using A = acc_t<T>;
  T* w;
  const G* gradient;
  uint8_t* codes;
  float* scales;
  int64_t step;
  Factors<A> f;
  ChangeRule<A> rule;
  int64_t shift = 0;

  template <bool kMeasured>
  ChunkSums run(int64_t begin, int64_t end) const {
    ChunkSums sums;
    for (int64_t i = begin; i < end; i += kMomentBlock) {
      block<kMeasured>(i / kMomentBlock, static_cast<int>(std::min<int64_t>(end - i, kMomentBlock)),
                       sums);
    }
    return sums;
  }

 private:
  template <bool kMeasured>
  void block(int64_t index, int count, ChunkSums& sums) const {
    T* at = w + index * kMomentBlock;
    const G* gradient_at = kGradient ? gradient + (index * kMomentBlock - shift) : nullptr;
    uint8_t* m_code = codes + index * 2 * kMomentBlock;
    uint8_t* root_code = m_code + kMomentBlock;
    float* scale = scales + index * 2;
    // Copies, which no store into the tensors can change.
    const Factors<A> own = f;
    const Factors<float> narrow = {static_cast<float>(f.scale),
                                   static_cast<float>(f.beta1),
                                   static_cast<float>(f.beta2),
                                   static_cast<float>(f.rest1),
                                   static_cast<float>(f.rest2),
                                   0,
                                   0,
                                   0,
                                   0,
                                   0};
    const float m_scale = scale[0];
    const float root_scale = scale[1];
    std::array<float, kMomentBlock> m;
    std::array<float, kMomentBlock> root;
    float largest_m = 0;
    float largest_root = 0;
    double squares = 0;
    double moved = 0;
    double size = 0;
#pragma omp simd reduction(max : largest_m, largest_root) reduction(+ : squares, moved, size)
    for (int j = 0; j < count; ++j) {
      A arrived = 0;
      if constexpr (kGradient) {
        arrived = static_cast<A>(gradient_at[j]);
      }
      const A old = static_cast<A>(at[j]);
      const Moments now = Moments::of_codes(m_code[j], root_code[j], m_scale, root_scale)
                              .updated(narrow.scale * static_cast<float>(arrived), narrow.beta1,
                                       narrow.beta2, narrow.rest1, narrow.rest2);
      const A step_size =
          own.rate * static_cast<A>(now.m) / (static_cast<A>(now.root) * own.root + own.eps);
      const A w_new = (own.before * old - step_size) * own.after;
      store(at[j], w_new);
      const float size_m = std::abs(now.m);
      largest_m = size_m > largest_m ? size_m : largest_m;
      largest_root = now.root > largest_root ? now.root : largest_root;
      m[static_cast<size_t>(j)] = now.m;
      root[static_cast<size_t>(j)] = now.root;
      if constexpr (kMeasured) {
        squares += static_cast<double>(arrived) * static_cast<double>(arrived);
        moved += static_cast<double>(rule.magnitude(old - w_new) / rule.under(old));
        size += static_cast<double>(rule.magnitude(old));
      }
    }
    const float over_m = over_scale(largest_m);
    const float over_root = over_scale(largest_root);
    const uint32_t key = rounding_key(index, step);
#pragma omp simd
    for (int j = 0; j < count; ++j) {
      const uint32_t random = scramble(key + static_cast<uint32_t>(j));
      m_code[j] = code_of_momentum(m[static_cast<size_t>(j)] * over_m, random);
      root_code[j] = code_of_root(root[static_cast<size_t>(j)] * over_root, random);
    }
    scale[0] = largest_m;
    scale[1] = largest_root;
    sums.add({squares, moved, size});
  }
};

template <typename T, typename G, bool kGradient>
void update_in(const KernelArgs& args, const AdamWAttrs& attrs, int64_t step) {
  using A = acc_t<T>;
  const auto factors = factors_of<A>(args, attrs, step);
  T* w = args.out[0].as<T>();
  const G* gradient = args.in[1].as<G>();
  if (args.out[1].dtype == DType::u8) {
    run_gradient_update<G>(args, 8, attrs.measures, 12,
                           BlockwiseAdamW<T, G, kGradient>{.w = w,
                                                           .gradient = gradient,
                                                           .codes = args.out[1].as<uint8_t>(),
                                                           .scales = args.out[2].as<float>(),
                                                           .step = step,
                                                           .f = factors,
                                                           .rule = ChangeRule<A>(attrs.measures)},
                           kMomentBlock);
  } else {
    run_gradient_update<G>(args, 8, attrs.measures, 8,
                           AdamW<T, G, kGradient>{.w = w,
                                                  .gradient = gradient,
                                                  .m = args.out[1].as<A>(),
                                                  .v = args.out[2].as<A>(),
                                                  .f = factors,
                                                  .rule = ChangeRule<A>(attrs.measures)});
  }
}

}  // namespace

void adamw_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<AdamWAttrs>();
  int64_t& step = *args.out[3].as<int64_t>();
  if (attrs.no_gradient) {
    if (step == 0) {
      write_measures(args, attrs.measures, {});
      return;
    }
    ++step;
    dispatch_floating(args.in[0].dtype, args.op,
                      [&]<typename T>() { update_in<T, T, false>(args, attrs, step); });
  } else {
    ++step;
    dispatch_update(args.in[0].dtype, args.in[1].dtype, args.op,
                    [&]<typename T, typename G>() { update_in<T, G, true>(args, attrs, step); });
  }
  if (args.in.size() > 7 && args.in[7].data != nullptr) {
    convert_into(args.out[4], args.out[0], args.op);
  }
}

}  // namespace lithe
