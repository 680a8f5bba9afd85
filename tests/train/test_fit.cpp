// What a refusal for lack of memory advises.
#include <doctest/doctest.h>

#include "train/fit.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

// A CPU that says it has this much left.
class SmallMemory final : public DeviceMemory {
 public:
  explicit SmallMemory(int64_t available) : available_(available) {}
  DeviceKind kind() const override { return DeviceKind::cpu; }
  std::string description() const override { return "a small device"; }
  int64_t available_bytes() const override { return available_; }
  void* allocate(int64_t bytes, std::string_view what) override {
    return memory_->allocate(bytes, what);
  }
  void release(void* block, int64_t bytes) noexcept override { memory_->release(block, bytes); }
  void copy_in(void* to, const void* from, int64_t bytes) override {
    memory_->copy_in(to, from, bytes);
  }
  void copy_out(void* to, const void* from, int64_t bytes) override {
    memory_->copy_out(to, from, bytes);
  }
  void copy_within(void* to, const void* from, int64_t bytes) override {
    memory_->copy_within(to, from, bytes);
  }
  void fill(void* to, uint8_t byte, int64_t bytes) override { memory_->fill(to, byte, bytes); }
  void synchronize() override {}
  void* allocate_host(int64_t bytes) override { return memory_->allocate_host(bytes); }
  void release_host(void* block) noexcept override { memory_->release_host(block); }
  void stamp_begin() override { memory_->stamp_begin(); }
  void stamp() override { memory_->stamp(); }
  std::vector<double> stamp_end() override { return memory_->stamp_end(); }

 private:
  std::shared_ptr<DeviceMemory> memory_ = cpu_memory();
  int64_t available_;
};

std::string refusal(Experiment& experiment, int64_t available) {
  try {
    check_fits(experiment, SmallMemory(available));
  } catch (const MemoryError& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a refusal names the cheapest pass and the largest batch that would fit") {
  const std::vector<std::string> wide = {"train.batch_size=64", "model.vit.num_hidden_layers=4"};
  const auto peak = [&](std::vector<std::string> more) {
    more.insert(more.begin(), wide.begin(), wide.end());
    const recipe::Recipe recipe = tiny_recipe(more);
    Experiment experiment(recipe, DeviceKind::cpu);
    return experiment.memory().predicted_peak_bytes;
  };
  const recipe::Recipe recipe = tiny_recipe(wide);
  Experiment experiment(recipe, DeviceKind::cpu);
  const int64_t full = peak({});
  const int64_t one = peak({"recompute.blocks=0-0"});
  const int64_t all = peak({"recompute.blocks=all"});
  const int64_t half = peak({"train.batch_size=32"});
  REQUIRE(one < full);
  REQUIRE(all < one);
  CHECK(refusal(experiment, full).empty());
  CHECK(contains(refusal(experiment, full - 1), "with recompute.blocks=0-0 it needs"));
  CHECK(contains(refusal(experiment, all), "with recompute.blocks=all it needs"));
  CHECK(contains(refusal(experiment, full - 1), "train.batch_size=32"));
  CHECK(half < full);
  CHECK(contains(refusal(experiment, 1 << 10), "no pass alone makes it fit"));
}
