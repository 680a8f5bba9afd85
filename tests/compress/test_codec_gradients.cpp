// Gradients through codecs: bit-equal where nothing is lost, near where bits are, and whole models
// that train with the presets.
#include "compress/codec_block.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

std::vector<std::string> with(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("a lossless codec leaves every weight bit-equal") {
  const std::vector<std::string> dropout = {"model.vit.hidden_dropout_prob=0.1",
                                            "model.vit.attention_probs_dropout_prob=0.1"};
  for (const auto& base :
       {std::vector<std::string>{}, dropout, with(dropout, {"model.attention=unfused"}),
        with(dropout, {"train.accumulate=2"}),
        with(dropout, {"recompute.patterns=*/gelu", "recompute.blocks=none"})}) {
    TinyRun plain(base);
    TinyRun copied(with(base, {"codec.edges=any:fp32"}));
    CHECK(copied.experiment.update_step().passes.back().sites > 20);
    for (int step = 0; step < 3; ++step) {
      CHECK(plain.step(step) == copied.step(step));
    }
    for (SlotId s = 0; s < plain.experiment.slots().size(); ++s) {
      INFO(plain.experiment.slots()[s].name);
      CHECK(same_bits(plain.executor.read_slot(s), copied.executor.read_slot(s)));
    }
  }
}

TEST_CASE("dropout of probabilities is drawn again from what softmax's gradient keeps anyway") {
  Setting plain{.unfused = true};
  Setting drawn = plain;
  drawn.codec = {"codec.edges=dropped_probabilities:regenerate"};
  BlockPlan a(true, plain);
  BlockPlan b(true, drawn);
  CHECK(a.per_token() - b.per_token() == 4 * kHeads * kTokens);
  check_same_bits(run(a), run(b));
}

TEST_CASE("gradients with codecs are near, and nearer with more bits") {
  const std::vector<std::string> trained = {"attention.output.dense.weight",
                                            "intermediate.dense.weight", "output.dense.weight"};
  for (const bool bert : {true, false}) {
    const auto error_of = [&](const Setting& setting, double& of_x) {
      Setting exact = setting;
      exact.codec.clear();
      BlockPlan a(bert, with_trained(exact, trained));
      BlockPlan b(bert, with_trained(setting, trained));
      const auto expected = run(a);
      const auto got = run(b);
      double worst = 0;
      for (const auto& [name, value] : expected) {
        // The key's bias has no gradient in exact arithmetic.
        if (name.find("key.bias") == std::string::npos) {
          worst = std::max(worst, relative_error(got.at(name), value));
        }
      }
      of_x = relative_error(got.at("grad.x"), expected.at("grad.x"));
      return worst;
    };
    double x8 = 0;
    double x4 = 0;
    double clean = 0;
    double original = 0;
    const double w8 = error_of({.codec = {"codec.edges=any:int8"}}, x8);
    const double w4 = error_of({.codec = {"codec.edges=any:int4"}}, x4);
    const double wc = error_of(kSlimFit, clean);
    const double wo = error_of(kOriginal, original);
    MESSAGE(
        fmt::format("{}: error of dx and of the worst gradient: int8 {:.2g} {:.2g}, int4 {:.2g} "
                    "{:.2g}, slimfit {:.2g} {:.2g}, original {:.2g} {:.2g}",
                    bert ? "BERT" : "ViT", x8, w8, x4, w4, clean, wc, original, wo));
    CHECK(x8 > 0);
    CHECK(x8 < 0.01);
    CHECK(w8 < 0.02);
    CHECK(x4 > 4 * x8);
    CHECK(x4 < 0.1);
    CHECK(w4 < 0.3);
    CHECK(clean < original);
    CHECK(clean < 0.12);
    CHECK(original < 0.2);
  }
}

TEST_CASE("diffuse attention: 8-bit probabilities lose its gradient, recomputed ones do not") {
  const auto shape_of = [](int64_t tokens) { return Shape{1, tokens, 1, 64}; };
  // Relative errors of dq, dk and dv for logits of standard deviation 1.
  const auto errors = [&](int64_t tokens, bool unfused, const std::vector<std::string>& edges) {
    const Shape shape = shape_of(tokens);
    std::array<std::vector<Tensor>, 2> results;
    for (const bool coded : {false, true}) {
      const SlotTable slots;
      Graph g(slots);
      std::vector<ValueId> in;
      std::vector<ValueId> made;
      for (const char* name : {"q", "k", "v"}) {
        in.push_back(g.input(name, DType::f32, shape));
        made.push_back(scale(g, in.back(), -1.0));
      }
      const ValueId y = attention(g, made[0], made[1], made[2], {.scale = 0.125});
      const ValueId loss = scale(g, y, -1.0);
      if (unfused) {
        expand(g, is_attention);
      }
      in.push_back(g.input("dy", DType::f32, shape));
      const auto grads = build_gradients(g, loss, in[3], std::span(in).first(3), add_op);
      std::vector<ValueId> out;
      for (int i = 0; i < 3; ++i) {
        for (const ParameterGradient& p : grads) {
          if (p.parameter == in[static_cast<size_t>(i)]) {
            out.push_back(p.gradient);
            g.mark_output(p.gradient, fmt::format("d{}", i));
          }
        }
      }
      REQUIRE(out.size() == 3);
      if (coded) {
        const auto reports = codec_passes(edges).apply_graph({nullptr, nullptr, &g});
        CHECK(reports[0].sites >= 3);
      }
      g.eliminate_dead();
      const Plan plan = make_plan(g, DeviceKind::cpu);
      Executor executor(cpu_memory(), kernel_lookup(DeviceKind::cpu), slots);
      const Program program = executor.bind(g, plan);
      for (size_t i = 0; i < in.size(); ++i) {
        Tensor value(DType::f32, shape);
        auto values = value.as<float>();
        for (size_t j = 0; j < values.size(); ++j) {
          const PhiloxBlock r = philox(5, i, j);
          values[j] = std::sqrt(-2 * std::log(uniform01(r.word[0]) + 1e-7f)) *
                      std::cos(6.2831853f * uniform01(r.word[1]));
        }
        executor.write(program, in[i], value);
      }
      executor.run(program);
      for (ValueId v : out) {
        results[coded ? 1 : 0].push_back(executor.read(program, v));
      }
    }
    std::vector<double> out;
    for (size_t i = 0; i < 3; ++i) {
      out.push_back(relative_error(results[1][i], results[0][i]));
    }
    return out;
  };
  struct Length {
    int64_t tokens;
    double least, most;  // of the original's errors
  };
  // 27 and 37 % in the specification's table, 2.6 to 3.6 % where probabilities are computed again.
  for (const Length& l : {Length{384, 0.2, 0.35}, Length{577, 0.3, 0.45}}) {
    const auto original =
        errors(l.tokens, true, {"codec.edges=[\"attention:q3.4\", \"probabilities:uq0.8\"]"});
    const auto recomputed = errors(l.tokens, false, {"codec.edges=attention:q3.4"});
    const auto scaled = errors(l.tokens, false, {"codec.edges=attention:int8"});
    MESSAGE(fmt::format(
        "{} tokens, errors of dq, dk, dv: original {:.3f}, recomputed {:.3f}, "
        "scaled {:.3f}",
        l.tokens, fmt::join(original, " "), fmt::join(recomputed, " "), fmt::join(scaled, " ")));
    for (size_t i = 0; i < 3; ++i) {
      CHECK(original[i] > l.least);
      CHECK(original[i] < l.most);
      CHECK(recomputed[i] < 0.045);
      CHECK(scaled[i] < recomputed[i]);
    }
  }
}

TEST_CASE("whole models train with the presets, in a part of the memory") {
  constexpr int kSteps = 10;
  const auto saved = [](TinyRun& run) {
    int64_t sum = 0;
    for (const Buffer& b : run.experiment.update_step().plan.buffers) {
      sum += b.cls == MemoryClass::saved_activations ? b.bytes : 0;
    }
    return sum;
  };
  for (const std::string compute : {"fp32", "bf16"}) {
    const std::vector<std::string> base = {
        "train.compute=" + compute, "train.batch_size=16",
        "freeze.patterns=[\"*dense.weight\", \"*query.weight\", \"*key.weight\", "
        "\"*value.weight\", \"*norm_before.weight\", \"*norm_after.weight\"]"};
    TinyRun plain(base);
    double exact = 0;
    for (int step = 0; step < kSteps; ++step) {
      exact = plain.step(0);
    }
    for (const std::string preset : {"slimfit", "slimfit_original"}) {
      TinyRun coded(
          with(base, {"codec.preset=" + preset,
                      preset == "slimfit" ? "model.attention=fused" : "model.attention=unfused"}));
      double first = 0;
      double last = 0;
      for (int step = 0; step < kSteps; ++step) {
        last = coded.step(0);
        first = step == 0 ? last : first;
      }
      CAPTURE(preset);
      // Biases alone are trained; as far as with exact gradients, to a twentieth of the way.
      CHECK(first - exact > 0.2);
      CHECK(std::abs(last - exact) < 0.05 * (first - exact));
      CHECK(10 * saved(coded) < (compute == "fp32" ? 4 : 6) * saved(plain));
    }
  }
}

TEST_CASE("stochastic codecs want random numbers and are a function of the step") {
  CHECK_NOTHROW(TinyRun({"codec.edges=any:int8", "codec.stochastic=true"}));
  TinyRun without({"codec.edges=any:int8", "codec.stochastic=true"});
  CHECK(without.experiment.update_step().passes.back().sites == 0);
  const std::vector<std::string> on = {"codec.edges=any:int8", "codec.stochastic=true",
                                       "model.vit.hidden_dropout_prob=0.1"};
  TinyRun a(on);
  TinyRun b(on);
  for (int step = 0; step < 2; ++step) {
    CHECK(a.step(step) == b.step(step));
  }
  for (SlotId s = 0; s < a.experiment.slots().size(); ++s) {
    CHECK(same_bits(a.executor.read_slot(s), b.executor.read_slot(s)));
  }
}
