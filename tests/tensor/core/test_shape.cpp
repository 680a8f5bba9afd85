#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "tensor/core/shape.h"

using namespace lithe;

namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

template <typename F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("shape: dimensions, element counts and printing") {
  const Shape scalar;
  CHECK(scalar.rank() == 0);
  CHECK(scalar.numel() == 1);
  CHECK(to_string(scalar) == "[]");
  const Shape s{32, 128, 768};
  CHECK(s.rank() == 3);
  CHECK(s[1] == 128);
  CHECK(s.back() == 768);
  CHECK(s.back(2) == 32);
  CHECK(s.numel() == 32 * 128 * 768);
  CHECK(s.product(1, 3) == 128 * 768);
  CHECK(s.product(2, 2) == 1);
  CHECK(fmt::format("{}", s) == "[32, 128, 768]");
  CHECK(Shape{4, 0, 9}.numel() == 0);
  CHECK(Shape(std::vector<int64_t>{1, 2}) == Shape{1, 2});
  CHECK(Shape{1, 2} != Shape{1, 2, 1});
  CHECK(Shape{} != Shape{1});
}

TEST_CASE("shape refuses negative dimensions, rank 7 and element counts that overflow") {
  CHECK_THROWS_AS((Shape{1, -1}), ShapeError);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1}), ShapeError);
  Shape six{1, 1, 1, 1, 1, 1};
  CHECK_THROWS_AS(six.push_back(1), ShapeError);
  CHECK_THROWS_AS((Shape{kMax, 2}.numel()), ShapeError);
  CHECK(Shape{kMax, 1}.numel() == kMax);
}

TEST_CASE("byte sizes") {
  CHECK(byte_size(DType::f64, {3, 5}) == 120);
  CHECK(byte_size(DType::bf16, {3, 5}) == 30);
  CHECK(byte_size(DType::boolean, {7}) == 7);
  CHECK(byte_size(DType::i4, {7}) == 4);
  CHECK(byte_size(DType::i4, {8}) == 4);
  CHECK(byte_size(DType::f32, {0}) == 0);
  CHECK(byte_size(DType::f32, {}) == 4);
  CHECK_THROWS_AS(byte_size(DType::f64, {kMax / 4}), ShapeError);
}

TEST_CASE("broadcast follows NumPy's rule") {
  CHECK(broadcast({3, 1}, {1, 4}, "t") == Shape{3, 4});
  CHECK(broadcast({5, 3, 4}, {4}, "t") == Shape{5, 3, 4});
  CHECK(broadcast({}, {2, 3}, "t") == Shape{2, 3});
  CHECK(broadcast({0}, {1}, "t") == Shape{0});
  CHECK(broadcast({2, 0, 3}, {1, 3}, "t") == Shape{2, 0, 3});
  CHECK(broadcast({1}, {}, "t") == Shape{1});
  const std::string text = message_of([] { broadcast({2, 3}, {2, 4}, "add"); });
  CHECK(contains(text, "[add]"));
  CHECK(contains(text, "[2, 3]"));
  CHECK(contains(text, "[2, 4]"));
  CHECK_THROWS_AS(broadcast({0}, {2}, "t"), ShapeError);
}

TEST_CASE("checked arithmetic reports an overflow instead of wrapping") {
  CHECK(checked_mul(1 << 20, 1 << 20) == int64_t{1} << 40);
  CHECK(checked_mul(-3, 5) == -15);
  CHECK(checked_mul(kMax, 0) == 0);
  CHECK(checked_add(kMax - 1, 1) == kMax);
  CHECK_THROWS_AS(checked_mul(int64_t{1} << 32, int64_t{1} << 31), ShapeError);
  CHECK_THROWS_AS(checked_add(kMax, 1), ShapeError);
  const std::string text = message_of([] { checked_mul(kMax, 3); });
  CHECK(contains(text, std::to_string(kMax)));
  CHECK(contains(text, "3"));
  CHECK(round_up(0, 256) == 0);
  CHECK(round_up(1, 256) == 256);
  CHECK(round_up(256, 256) == 256);
  CHECK(round_up(257, 256) == 512);
  CHECK_THROWS_AS(round_up(kMax, 256), ShapeError);
}
