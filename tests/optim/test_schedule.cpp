#include <doctest/doctest.h>

#include "io/safetensors.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

using namespace lithe;  // NOLINT

TEST_CASE("schedules are those of transformers.get_scheduler, N = 20, warm-up 5") {
  const SafetensorsFile golden =
      SafetensorsFile::open(std::string(LITHE_SOURCE_DIR) + "/tests/golden/optimizers.safetensors");
  const std::pair<ScheduleKind, const char*> cases[] = {
      {ScheduleKind::linear, "schedule.linear"},
      {ScheduleKind::cosine, "schedule.cosine"},
      {ScheduleKind::constant, "schedule.constant_with_warmup"}};
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

TEST_CASE("decay patterns") {
  const std::vector<std::string> patterns = {"*.bias", "*norm*.weight"};
  CHECK(decays("vit.encoder.layer.0.output.dense.weight", patterns));
  CHECK_FALSE(decays("vit.encoder.layer.0.output.dense.bias", patterns));
  CHECK_FALSE(decays("vit.encoder.layer.0.layernorm_before.weight", patterns));
  CHECK(decays("anything", {}));
}
