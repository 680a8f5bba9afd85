// A real pretrained BERT against transformers. Needs LITHE_MINILM=FOLDER with what
// tests/reference/make_minilm_hidden.py puts there: `model`, the model's folder, and
// hidden.safetensors, token ids with the last hidden states wanted.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>

#include "nn/bert_golden.h"
#include "nn/pretrained.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

TEST_CASE("a pretrained MiniLM's hidden states are those of transformers (LITHE_MINILM)" *
          doctest::skip(std::getenv("LITHE_MINILM") == nullptr)) {
  const std::filesystem::path folder = std::getenv("LITHE_MINILM");
  std::ifstream in(folder / "model" / "config.json");
  SlotTable slots;
  const auto model = nn::make_model(slots, nlohmann::json::parse(in));
  const SafetensorsFile wanted = SafetensorsFile::open(folder / "hidden.safetensors");
  const Shape shape = wanted.info("input_ids").shape;

  Graph g(slots);
  const nn::ForwardOut out =
      model->build(g, {.batch = shape[0], .tokens = shape[1], .training = false, .loss = false});
  g.mark_output(out.hidden, "hidden");
  g.eliminate_dead();
  const Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(cpu_memory(), cpu_kernel, slots);
  const Program program = executor.bind(g, plan);
  const SafetensorsFolder weights = SafetensorsFolder::open(folder / "model");
  const nn::NameMatch match = nn::match_names(*model, weights);
  CHECK(match.missing == std::vector<std::string>{"classifier.weight", "classifier.bias"});
  CHECK(match.unexpected.empty());
  nn::load_weights(*model, weights, match.matched,
                   [&](SlotId slot, const Tensor& value) { executor.write_slot(slot, value); });
  for (ValueId v : g.leaves()) {
    if (g.value(v).is_input) {
      executor.write(program, v, wanted.read(g.name(v)));
    }
  }
  executor.run(program);
  const Tensor hidden = executor.read(program, out.hidden);
  const Tensor exact = wanted.read("hidden");
  double worst = 0;
  for (int64_t i = 0; i < shape[0]; ++i) {
    const double error = relative_error(row(hidden, i), row(exact, i));
    worst = std::max(worst, error);
    CHECK(error < 1e-4);
  }
  MESSAGE(
      fmt::format("{} texts of {} tokens: worst relative error {:.2g}", shape[0], shape[1], worst));
}
