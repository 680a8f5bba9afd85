#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/graph/slots.h"

using namespace lithe;

namespace {

bool same(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())) == 0;
}

Slot slot(std::string name, Init init, DType dtype = DType::f32, Shape shape = {300, 400}) {
  return {.name = std::move(name), .dtype = dtype, .shape = shape, .init = init};
}

Tensor initial_value(const Slot& alone, uint64_t seed) {
  SlotTable slots;
  return lithe::initial_value(slots, slots.add(alone), seed);
}

}  // namespace

TEST_CASE("initial values depend on seed and name only") {
  const Slot w = slot("layer.0.weight", Init::normal(0.02));
  CHECK(same(initial_value(w, 1), initial_value(w, 1)));
  CHECK_FALSE(same(initial_value(w, 1), initial_value(w, 2)));
  CHECK_FALSE(same(initial_value(w, 1), initial_value(slot("layer.1.weight", w.init), 1)));
  // A longer tensor of the same name begins with the same numbers.
  const Tensor longer = initial_value(slot(w.name, w.init, DType::f32, {400, 400}), 1);
  CHECK(longer.as<float>()[119999] == initial_value(w, 1).as<float>()[119999]);
}

TEST_CASE("copies are rounded parameters, and lookup tables and state have none") {
  SlotTable slots;
  const SlotId weight = slots.add(slot("w", Init::normal(0.02)));
  Slot table = slot("table", Init::ones());
  table.lookup = true;
  const SlotId lookup = slots.add(table);
  Slot moment = slot("m", Init::zeros());
  moment.kind = SlotKind::state;
  const SlotId state = slots.add(moment);
  slots.add_copies(DType::bf16);
  CHECK(slots.size() == 4);
  const SlotId copy = slots[weight].copy;
  REQUIRE(copy == 3);
  CHECK(slots[copy].name == "copy.w");
  CHECK(slots[copy].dtype == DType::bf16);
  CHECK(slots.original(copy) == weight);
  CHECK(slots.original(weight) == weight);
  CHECK(slots[lookup].copy == kNoSlot);
  CHECK(slots[state].copy == kNoSlot);
  CHECK(same(lithe::initial_value(slots, copy, 5),
             lithe::initial_value(slots, weight, 5).to(DType::bf16)));
}

TEST_CASE("normal initial values have the asked mean, deviation and tails") {
  const Tensor t = initial_value(slot("w", Init::normal(0.02)), 3);
  double sum = 0;
  double squares = 0;
  int beyond_two = 0;
  for (float v : t.as<float>()) {
    sum += v;
    squares += double{v} * double{v};
    beyond_two += std::abs(v) > 0.04f ? 1 : 0;
  }
  const auto n = static_cast<double>(t.numel());
  // Five standard errors each.
  CHECK(std::abs(sum / n) < 5 * 0.02 / std::sqrt(n));
  CHECK(std::abs(squares / n / 0.0004 - 1) < 5 * std::sqrt(2 / n));
  CHECK(std::abs(beyond_two / n - 0.0455) < 5 * std::sqrt(0.0455 * 0.9545 / n));
  // Neighbours are independent: correlation within five standard errors of zero.
  double lag = 0;
  for (size_t i = 1; i < t.as<float>().size(); ++i) {
    lag += double{t.as<float>()[i]} * double{t.as<float>()[i - 1]};
  }
  CHECK(std::abs(lag / n / 0.0004) < 5 / std::sqrt(n));
}

TEST_CASE("constants, also of integer and 16-bit slots; 16-bit values are the rounded fp32 ones") {
  const auto all = [](const Tensor& t, double want) {
    const Tensor wide = t.to(DType::f64);
    const auto values = wide.as<double>();
    return std::all_of(values.begin(), values.end(), [&](double v) { return v == want; });
  };
  CHECK(all(initial_value(slot("a", Init::zeros()), 1), 0));
  CHECK(all(initial_value(slot("a", Init::ones(), DType::bf16), 1), 1));
  CHECK(all(initial_value(slot("step", Init::zeros(), DType::i64, {1}), 1), 0));
  const Init init = Init::normal(1);
  const Tensor wide = initial_value(slot("w", init), 5);
  const Tensor half = initial_value(slot("w", init, DType::bf16), 5);
  CHECK(same(wide.to(DType::bf16), half));
}
