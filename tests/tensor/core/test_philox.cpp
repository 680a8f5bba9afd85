#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "tensor/core/philox.h"

using namespace lithe;

namespace {

void check_words(const PhiloxBlock& block, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  CHECK(block.word[0] == a);
  CHECK(block.word[1] == b);
  CHECK(block.word[2] == c);
  CHECK(block.word[3] == d);
}

}  // namespace

// Random123's kat_vectors for philox4x32-10: counter words 0 and 1 are the index, 2 and 3 the
// stream.
TEST_CASE("philox gives the published vectors") {
  check_words(philox(0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  check_words(philox(~0ull, ~0ull, ~0ull), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
  // The digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  check_words(philox(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3243f6a88ull),
              0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

TEST_CASE("uniform01 stays in [0, 1) and has the mean and variance of a uniform variable") {
  CHECK(uniform01(0) == 0.0f);
  CHECK(uniform01(0xffffffffu) < 1.0f);
  double sum = 0;
  double squares = 0;
  constexpr int kBlocks = 50000;
  for (uint64_t i = 0; i < kBlocks; ++i) {
    const PhiloxBlock block = philox(3, 4, i);
    for (const uint32_t word : block.word) {
      const double u = uniform01(word);
      sum += u;
      squares += u * u;
    }
  }
  const double n = 4.0 * kBlocks;
  // Five standard errors: sqrt(1/12 / n) and sqrt(4/45 / n).
  CHECK(std::abs(sum / n - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
}

TEST_CASE("mix separates neighbouring keys and steps") {
  std::set<uint64_t> streams;
  for (uint64_t a = 0; a < 64; ++a) {
    for (uint64_t b = 0; b < 64; ++b) {
      streams.insert(mix(a, b));
    }
  }
  CHECK(streams.size() == 64 * 64);
}
