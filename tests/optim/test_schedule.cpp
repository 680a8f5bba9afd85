#include <doctest/doctest.h>

#include <cmath>

#include "io/safetensors.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

using namespace lithe;  // NOLINT

TEST_CASE("schedules are those of transformers.get_scheduler, N = 20, warm-up 5") {
  const SafetensorsFile golden =
      SafetensorsFile::open(std::string(LITHE_SOURCE_DIR) + "/tests/golden/optimizers.safetensors");
  const std::pair<RateKind, const char*> cases[] = {
      {RateKind::linear, "schedule.linear"},
      {RateKind::cosine, "schedule.cosine"},
      {RateKind::constant, "schedule.constant_with_warmup"}};
  for (const auto& [kind, name] : cases) {
    const Tensor wanted = golden.read(name);
    const Schedule schedule{kind, 5, 20};
    REQUIRE(wanted.numel() == 20);
    for (int64_t s = 0; s < 20; ++s) {
      CAPTURE(s);
      CHECK(schedule.factor(s) ==
            doctest::Approx(wanted.as<double>()[static_cast<size_t>(s)]).epsilon(1e-12));
    }
  }
}

TEST_CASE("the paper's schedules: first three and last two values") {
  // Section 5.1 of the specification; N = 804 updates of CoLA at 8e-5.
  const int64_t n = 804;
  const double lr = 8e-5;
  const auto row = [&](const Schedule& schedule) {
    std::vector<double> out;
    for (const int64_t s : {int64_t{0}, int64_t{1}, int64_t{2}, n - 2, n - 1}) {
      out.push_back(lr * schedule.factor(s));
    }
    return out;
  };
  const auto near = [](const std::vector<double>& got, const std::vector<double>& wanted) {
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      CHECK(got[i] == doctest::Approx(wanted[i]).epsilon(1e-12));
    }
  };
  // S1: lr (N + 1 - s) / (N + 1).
  near(row({.steps = n, .extra = 1}),
       {8e-5, 8e-5 * 804 / 805, 8e-5 * 803 / 805, 8e-5 * 3 / 805, 8e-5 * 2 / 805});
  // S2 without warm-up (STS-B): lr (N - s) / N.
  near(row({.steps = n}), {8e-5, 8e-5 * 803 / 804, 8e-5 * 802 / 804, 8e-5 * 2 / 804, 8e-5 / 804});
  // S2 with "0.1" (CoLA): 0, then lr (N - s) / (N - 0.1); the original printed 7.991e-5, 7.981e-5.
  const auto s2 = row({.warmup = 0.1, .steps = n});
  near(s2, {0, 8e-5 * 803 / 803.9, 8e-5 * 802 / 803.9, 8e-5 * 2 / 803.9, 8e-5 / 803.9});
  CHECK(std::abs(s2[1] - 7.991e-5) < 5e-9);
  CHECK(std::abs(s2[2] - 7.981e-5) < 5e-9);
  // S3: S1 one ahead.
  near(row({.steps = n, .extra = 1, .first = 1}),
       {8e-5 * 804 / 805, 8e-5 * 803 / 805, 8e-5 * 802 / 805, 8e-5 * 2 / 805, 8e-5 / 805});
  // SQuAD counts whole batches only: behind its schedule's end the last updates are at 0.
  const Schedule squad{.warmup = 0.1, .steps = n, .extra = -3};
  near(row(squad), {0, 8e-5 * 800 / 800.9, 8e-5 * 799 / 800.9, 0, 0});
  CHECK(squad.factor(n - 4) > 0);
  for (const int64_t s : {n, n + 5}) {
    CHECK(Schedule{.kind = RateKind::cosine, .steps = n}.factor(s) < 1e-12);
  }
}

TEST_CASE("decay patterns") {
  const std::vector<std::string> patterns = {"*.bias", "*norm*.weight"};
  CHECK(decays("vit.encoder.layer.0.output.dense.weight", patterns));
  CHECK_FALSE(decays("vit.encoder.layer.0.output.dense.bias", patterns));
  CHECK_FALSE(decays("vit.encoder.layer.0.layernorm_before.weight", patterns));
  CHECK(decays("anything", {}));
}
