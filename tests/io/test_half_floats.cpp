// fp16 and bf16 tensors of files, to fp32 and back, against the rounding of PyTorch.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "io/safetensors.h"
#include "temp_folder.h"

namespace lithe {
namespace {

// Bits of `count` elements of 16-bit floats as fp32, and the other way round.
std::vector<uint32_t> widen(DType dtype, const std::vector<uint16_t>& halves) {
  Tensor source(dtype, {static_cast<int64_t>(halves.size())});
  std::memcpy(source.data(), halves.data(), 2 * halves.size());
  const Tensor wide = source.to(DType::f32);
  std::vector<uint32_t> out(halves.size());
  std::memcpy(out.data(), wide.data(), 4 * out.size());
  return out;
}

std::vector<uint16_t> narrow(DType dtype, const std::vector<uint32_t>& floats) {
  Tensor source(DType::f32, {static_cast<int64_t>(floats.size())});
  std::memcpy(source.data(), floats.data(), 4 * floats.size());
  const Tensor halves = source.to(dtype);
  std::vector<uint16_t> out(floats.size());
  std::memcpy(out.data(), halves.data(), 2 * out.size());
  return out;
}

bool is_nan_fp32(uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }
bool is_nan_fp16(uint16_t bits) { return (bits & 0x7fffu) > 0x7c00u; }
bool is_nan_bf16(uint16_t bits) { return (bits & 0x7fffu) > 0x7f80u; }

// Order matters: every element has a weight of its own.
template <typename T>
uint64_t weighted_sum(const std::vector<T>& values) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < values.size(); ++i) {
    sum += values[i] * (2 * i + 1);
  }
  return sum;
}

std::vector<uint16_t> all_halves() {
  std::vector<uint16_t> out(65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    out[i] = static_cast<uint16_t>(i);
  }
  return out;
}

// Expected bits from PyTorch 2.15 (CPU):
//   torch.from_numpy(bits.view(float32)).to(torch.float16 or torch.bfloat16).view(torch.int16)
TEST_CASE("half floats: rounding, overflow and subnormals are those of PyTorch") {
  struct Case {
    uint32_t fp32;
    uint16_t fp16;
    uint16_t bf16;
  };
  const Case cases[] = {
      {0x00000000u, 0x0000, 0x0000},
      {0x80000000u, 0x8000, 0x8000},  // signed zeros
      // Between two neighbours: below, at (ties to even, both ways) and above the middle.
      {0x3f800000u, 0x3c00, 0x3f80},
      {0x3f800fffu, 0x3c00, 0x3f80},
      {0x3f801000u, 0x3c00, 0x3f80},
      {0x3f801001u, 0x3c01, 0x3f80},
      {0x3f803000u, 0x3c02, 0x3f80},
      {0x3f807fffu, 0x3c04, 0x3f80},
      {0x3f808000u, 0x3c04, 0x3f80},
      {0x3f808001u, 0x3c04, 0x3f81},
      {0x3f818000u, 0x3c0c, 0x3f82},
      {0xbf818000u, 0xbc0c, 0xbf82},
      // The largest fp16 is 65504; from 65520 on it is infinity.
      {0x477fe000u, 0x7bff, 0x4780},
      {0x477fefffu, 0x7bff, 0x4780},
      {0x477ff000u, 0x7c00, 0x4780},
      {0x477ff001u, 0x7c00, 0x4780},
      {0x47800000u, 0x7c00, 0x4780},
      {0xc77ff000u, 0xfc00, 0xc780},
      // The smallest normal fp16, and its subnormals down to half of the smallest.
      {0x38800000u, 0x0400, 0x3880},
      {0x387fffffu, 0x0400, 0x3880},
      {0x387ff000u, 0x0400, 0x3880},
      {0x387fefffu, 0x0400, 0x3880},
      {0x38000000u, 0x0200, 0x3800},
      {0x34200000u, 0x0002, 0x3420},
      {0x33c00000u, 0x0002, 0x33c0},
      {0x33bfffffu, 0x0001, 0x33c0},
      {0x33800000u, 0x0001, 0x3380},
      {0x33000001u, 0x0001, 0x3300},
      {0x33000000u, 0x0000, 0x3300},
      {0x32ffffffu, 0x0000, 0x3300},
      {0xb3000001u, 0x8001, 0xb300},
      // The largest finite numbers and infinity.
      {0x7f7f0000u, 0x7c00, 0x7f7f},
      {0x7f7f7fffu, 0x7c00, 0x7f7f},
      {0x7f7f8000u, 0x7c00, 0x7f80},
      {0x7f7fffffu, 0x7c00, 0x7f80},
      {0xff7f8000u, 0xfc00, 0xff80},
      {0x7f800000u, 0x7c00, 0x7f80},
      {0xff800000u, 0xfc00, 0xff80},
      // Subnormals of fp32.
      {0x00000001u, 0x0000, 0x0000},
      {0x00008000u, 0x0000, 0x0000},
      {0x00008001u, 0x0000, 0x0001},
      {0x00018000u, 0x0000, 0x0002},
      {0x007fffffu, 0x0000, 0x0080},
      {0x00800000u, 0x0000, 0x0080},
      {0x80018000u, 0x8000, 0x8002},
  };
  for (const Case& c : cases) {
    CAPTURE(c.fp32);
    CHECK(narrow(DType::f16, {c.fp32})[0] == c.fp16);
    CHECK(narrow(DType::bf16, {c.fp32})[0] == c.bf16);
  }
}

// i * 4099 for i < 2^20 covers the fp32 bit patterns evenly; NaN is taken as 0. The sums are
// ((bits of .to(dtype)) * (2 * i + 1)).sum() mod 2^64 from PyTorch 2.15.
TEST_CASE("half floats: a million fp32 values round as in PyTorch") {
  std::vector<uint32_t> floats(size_t{1} << 20);
  for (uint32_t i = 0; i < floats.size(); ++i) {
    const uint32_t bits = i * 4099u;
    floats[i] = is_nan_fp32(bits) ? 0 : bits;
  }
  CHECK(weighted_sum(narrow(DType::f16, floats)) == 0xac341d07c9e3aeu);
  CHECK(weighted_sum(narrow(DType::bf16, floats)) == 0xa92c0f0087314bu);
}

TEST_CASE("half floats: all 65536 values widen as in PyTorch and come back") {
  const std::vector<uint16_t> halves = all_halves();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    CAPTURE(dtype_name(dtype));
    std::vector<uint32_t> wide = widen(dtype, halves);
    const std::vector<uint16_t> back = narrow(dtype, wide);
    int wrong = 0;
    for (size_t i = 0; i < halves.size(); ++i) {
      const bool nan = dtype == DType::f16 ? is_nan_fp16(halves[i]) : is_nan_bf16(halves[i]);
      const bool nan_back = dtype == DType::f16 ? is_nan_fp16(back[i]) : is_nan_bf16(back[i]);
      wrong += nan != is_nan_fp32(wide[i]) || (nan ? !nan_back : back[i] != halves[i]);
      wide[i] = nan ? 0 : wide[i];
    }
    CHECK(wrong == 0);
    CHECK(weighted_sum(wide) == (dtype == DType::f16 ? 0x9a0971d14c800000u : 0xa96d684214800000u));
  }
}

TEST_CASE("half floats: between any two neighbours the middle goes to the even one") {
  for (const auto& [dtype, largest] :
       {std::pair{DType::f16, uint16_t{0x7bff}}, std::pair{DType::bf16, uint16_t{0x7f7f}}}) {
    CAPTURE(dtype_name(dtype));
    std::vector<uint32_t> floats;
    std::vector<uint16_t> expected;
    const std::vector<uint32_t> wide = widen(dtype, all_halves());
    for (uint16_t low = 0; low < largest; ++low) {
      const auto high = static_cast<uint16_t>(low + 1);
      // Exact: fp32 has at least one bit more than either.
      const float middle =
          std::bit_cast<float>(wide[low]) / 2 + std::bit_cast<float>(wide[high]) / 2;
      const uint32_t bits = std::bit_cast<uint32_t>(middle);
      floats.insert(floats.end(), {bits - 1, bits, bits + 1, (bits - 1) | 0x80000000u,
                                   bits | 0x80000000u, (bits + 1) | 0x80000000u});
      const uint16_t even = low % 2 == 0 ? low : high;
      for (const uint16_t sign : {uint16_t{0}, uint16_t{0x8000}}) {
        for (const uint16_t value : {low, even, high}) {
          expected.push_back(static_cast<uint16_t>(value | sign));
        }
      }
    }
    CHECK(narrow(dtype, floats) == expected);
  }
}

TEST_CASE("half floats: NaN stays NaN, with its sign") {
  const std::vector<uint32_t> nans{0x7fc00000u, 0xffc00001u, 0x7f800001u, 0x7fffffffu, 0xff80ffffu};
  const std::vector<uint16_t> fp16 = narrow(DType::f16, nans);
  const std::vector<uint16_t> bf16 = narrow(DType::bf16, nans);
  for (size_t i = 0; i < nans.size(); ++i) {
    CAPTURE(nans[i]);
    CHECK(is_nan_fp16(fp16[i]));
    CHECK(is_nan_bf16(bf16[i]));
    CHECK((fp16[i] >> 15) == (nans[i] >> 31));
    CHECK((bf16[i] >> 15) == (nans[i] >> 31));
  }
}

// PyTorch narrows fp64 to fp32 first, too: 65519.999999999 is 65520 then, and infinity in the end.
TEST_CASE("half floats: fp64 is rounded to fp32 on its way, as in PyTorch") {
  const Tensor source = Tensor::from<double>(
      {4},
      std::vector<double>{1 + 0x1p-11 + 0x1p-40, 65519.999999999, 0x1p-25 * (1 + 0x1p-40), 1e300});
  const Tensor halves = source.to(DType::f16);
  const uint16_t expected[] = {0x3c00, 0x7c00, 0x0000, 0x7c00};
  CHECK(std::memcmp(halves.data(), expected, sizeof(expected)) == 0);
}

TEST_CASE("half floats: files keep every bit, NaN payloads included") {
  const TempFolder folder;
  const std::vector<uint16_t> halves = all_halves();
  std::vector<NamedTensor> tensors;
  for (const DType dtype : {DType::f16, DType::bf16}) {
    Tensor tensor(dtype, {256, 256});
    std::memcpy(tensor.data(), halves.data(), 2 * halves.size());
    tensors.push_back({std::string(dtype_name(dtype)), tensor});
  }
  write_safetensors(folder / "half.safetensors", tensors);
  const SafetensorsFile file = SafetensorsFile::open(folder / "half.safetensors");
  for (const NamedTensor& entry : tensors) {
    CHECK(std::memcmp(file.read(entry.name).data(), halves.data(), 2 * halves.size()) == 0);
  }
}

}  // namespace
}  // namespace lithe
