// SlimFit's tables of saved activations (arXiv 2305.18513) against plans of whole models with the
// authors' formats: totals, and the bound that holds whichever units are trained.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "compress/saved_values.h"
#include "nn/model.h"
#include "train/experiment.h"
#include "train/options.h"

using namespace lithe;  // NOLINT

namespace {

using Overrides = std::vector<std::string>;

int64_t sum(const std::map<std::string, int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0},
                         [](int64_t total, const auto& v) { return total + v.second; });
}

// Bytes of what backward keeps of forward, by name of the value.
std::map<std::string, int64_t> saved_values_of(Experiment& experiment) {
  const StepGraph& step = experiment.update_step();
  const Graph& g = *step.graph;
  std::map<std::string, int64_t> out;
  for (const SavedValue& v : saved_values(g)) {
    out[g.name(v.value)] += g.bytes(v.value);
  }
  // The arena holds just that, in buffers of whole 256 bytes.
  int64_t buffers = 0;
  for (const Buffer& b : step.plan.buffers) {
    if (b.cls == MemoryClass::saved_activations) {
      buffers += g.bytes(b.value);
      CHECK(b.bytes - g.bytes(b.value) < 256);
    }
  }
  CHECK(buffers == sum(out));
  return out;
}

struct Model {
  std::string recipe;  // of configs/bench
  int64_t batch;
  Overrides more = {};

  Experiment experiment(const Overrides& overrides) const {
    Overrides all = more;
    all.push_back(fmt::format("train.batch_size={}", batch));
    all.insert(all.end(), overrides.begin(), overrides.end());
    return Experiment(
        load_train_recipe(fmt::format("{}/configs/bench/{}.yaml", LITHE_SOURCE_DIR, recipe), all),
        DeviceKind::cpu);
  }
  // With the authors' formats, and these units and all biases and shifts trained.
  std::map<std::string, int64_t> saved(const std::vector<std::string>& units) const {
    std::string list;
    for (const std::string& unit : units) {
      list += "\"" + unit + "\", ";
    }
    Experiment e =
        experiment({"codecs=slimfit_original", fmt::format("freeze.all_but=[{}\"*.bias\"]", list)});
    return saved_values_of(e);
  }
};

// ViT's last norm: SlimFit's code keeps its input of all tokens, here the norm and what backward
// keeps of it are of the class token alone. 4H a token that ours do not have.
int64_t last_norm(const Model& model) {
  return model.recipe.starts_with("vit") ? int64_t{4} * 768 * model.batch * 577 : 0;
}

const Model kGlue{"bert_base_cls", 32};
const Model kSquad{"bert_base_qa", 128};
const Model kImageNet{"vit_b16", 128, {"model.vit.image_size=384", "model.vit.num_labels=1000"}};

// The first k of 24 linear layers with inputs of their own.
std::vector<std::string> linears(const std::string& prefix, const std::vector<std::string>& order,
                                 int k) {
  std::vector<std::string> out;
  for (int i = 0; i < k; ++i) {
    out.push_back(fmt::format("{}.encoder.layer.{}.{}.weight", prefix, i % 12,
                              order[static_cast<size_t>(i / 12)]));
  }
  return out;
}

// SlimFit's figures have three or four digits.
void check_gigabytes(int64_t bytes, double wanted) {
  CHECK(static_cast<double>(bytes) == doctest::Approx(wanted * 1e9).epsilon(0.01));
}

}  // namespace

TEST_CASE("slimfit_original: saved bytes of BERT, SQuAD and ViT-384 are SlimFit's") {
  const std::vector<std::vector<std::string>> orders = {
      {"intermediate.dense", "attention.output.dense", "output.dense"},
      {"output.dense", "intermediate.dense", "attention.output.dense"}};
  struct Bound {
    const Model& model;
    std::string prefix;
    int units;
    double gigabytes;
  };
  for (const Bound& b : {Bound{kGlue, "bert", 21, 0.708}, Bound{kGlue, "bert", 6, 0.519},
                         Bound{kSquad, "bert", 21, 10.310}, Bound{kImageNet, "vit", 25, 16.536},
                         Bound{kImageNet, "vit", 5, 11.998}}) {
    CAPTURE(b.gigabytes);
    std::vector<int64_t> bytes;
    for (const auto& order : orders) {
      bytes.push_back(sum(b.model.saved(linears(b.prefix, order, b.units))));
      check_gigabytes(bytes.back() + last_norm(b.model), b.gigabytes);
      CHECK(static_cast<double>(bytes.back()) < (b.gigabytes + 0.0005) * 1e9);
    }
    CHECK(bytes[0] == bytes[1]);
  }
  check_gigabytes(sum(kGlue.saved({})), 0.444);
  check_gigabytes(sum(kImageNet.saved({})) + last_norm(kImageNet), 10.863);
  check_gigabytes(sum(kGlue.saved({"*"})), 1.299);
  check_gigabytes(sum(kImageNet.saved({"*"})) + last_norm(kImageNet), 26.10);
}

TEST_CASE("slimfit_original: what lives at the peak hardly depends on the units trained") {
  const std::vector<std::vector<std::string>> orders = {
      {"intermediate.dense", "attention.output.dense"},
      {"output.dense", "intermediate.dense"},
      {"attention.self.query", "output.dense"},
      {"attention.self.value", "intermediate.dense"}};
  std::vector<int64_t> peaks;
  for (const auto& order : orders) {
    std::string list;
    for (const std::string& unit : linears("bert", order, 21)) {
      list += "\"" + unit + "\", ";
    }
    Experiment e = kGlue.experiment(
        {"codecs=slimfit_original", fmt::format("freeze.all_but=[{}\"*.bias\"]", list)});
    // Without the optimizer's state, which the static choice has for the trained units alone.
    peaks.push_back(e.update_step().plan.live_peak_bytes);
  }
  const auto [least, most] = std::minmax_element(peaks.begin(), peaks.end());
  MESSAGE(fmt::format("live at the peak: {}", fmt::join(peaks, ", ")));
  CHECK(static_cast<double>(*most) < 1.001 * static_cast<double>(*least));
}

TEST_CASE("stored masks and unfused attention: saved bytes of exact training are SlimFit's") {
  struct Baseline {
    const Model& model;
    double gigabytes;
  };
  for (const Baseline& b :
       {Baseline{kGlue, 3.200}, Baseline{kSquad, 54.71}, Baseline{kImageNet, 68.58}}) {
    Experiment e =
        b.model.experiment({"model.attention=unfused", "codec.edges=dropout_mask:bytes"});
    check_gigabytes(sum(saved_values_of(e)) + last_norm(b.model), b.gigabytes);
  }
}

TEST_CASE("no choice of k units passes floor + 4HBT k, and the largest reaches it") {
  // What each unit alone adds to the values kept and takes from them; of several units it is the
  // union, since a value is kept once whoever reads it. All are seen with an embedding table
  // trained, for whose sake the gradient passes the embeddings' norm; no gradient does otherwise.
  const std::map<std::string, int64_t> floor = kGlue.saved({});
  struct Unit {
    std::string name;
    std::map<std::string, int64_t> adds;
    std::map<std::string, int64_t> takes;
  };
  std::vector<Unit> units;
  {
    Experiment whole =
        kGlue.experiment({"codecs=slimfit_original", "freeze.schedule=ils", "freeze.fraction=0.9"});
    for (const SlotId slot : whole.passes().schedule()->units) {
      units.push_back({whole.slots()[slot].name, {}, {}});
    }
  }
  REQUIRE(units.size() == 102);
  const std::string words = "bert.embeddings.word_embeddings.weight";
  const std::map<std::string, int64_t> with_words = kGlue.saved({words});
  const auto without = [](const std::map<std::string, int64_t>& a,
                          const std::map<std::string, int64_t>& b) {
    std::map<std::string, int64_t> out;
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::inserter(out, out.end()));
    return out;
  };
  for (Unit& unit : units) {
    if (unit.name.ends_with("_embeddings.weight")) {
      unit.adds = without(with_words, floor);
      continue;
    }
    const auto with = kGlue.saved({words, unit.name});
    unit.adds = without(with, with_words);
    unit.takes = without(with_words, with);
  }
  const auto bytes_of = [&](const std::vector<size_t>& chosen) {
    std::map<std::string, int64_t> kept = floor;
    for (const size_t u : chosen) {
      kept.insert(units[u].adds.begin(), units[u].adds.end());
    }
    for (const size_t u : chosen) {
      for (const auto& [name, bytes] : units[u].takes) {
        kept.erase(name);
      }
    }
    return sum(kept);
  };
  std::mt19937 random(1);  // NOLINT: the same choices each time
  std::vector<size_t> order(units.size());
  std::iota(order.begin(), order.end(), size_t{0});
  constexpr int64_t kUnitBytes = int64_t{4} * 768 * 32 * 128;
  for (const int64_t k : {6, 21}) {
    CAPTURE(k);
    const int64_t bound = sum(floor) + k * kUnitBytes;
    int64_t most = 0;
    int64_t least = bound;
    for (int i = 0; i < 1000; ++i) {
      std::shuffle(order.begin(), order.end(), random);
      const std::vector<size_t> chosen(order.begin(), order.begin() + k);
      const int64_t bytes = bytes_of(chosen);
      CHECK(bytes <= bound);
      most = std::max(most, bytes);
      least = std::min(least, bytes);
      if (i % 250 == 0) {  // what was added up is what a plan says
        std::vector<std::string> names;
        for (const size_t u : chosen) {
          names.push_back(units[u].name);
        }
        CHECK(sum(kGlue.saved(names)) == bytes);
      }
    }
    MESSAGE(fmt::format("k = {}: floor {}, 1,000 choices {} to {}, bound {}", k, sum(floor), least,
                        most, bound));
    CHECK(least < bound);
    if (k == 6) {
      CHECK(most == bound);
    }
    // Distinct linear layers with inputs of their own reach it.
    const auto largest =
        linears("bert", {"output.dense", "intermediate.dense"}, static_cast<int>(k));
    CHECK(sum(kGlue.saved(largest)) == bound);
  }
}
