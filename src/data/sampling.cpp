#include "data/sampling.h"

#include <algorithm>
#include <numeric>

#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr uint64_t kShuffleStream = 0x73687566666c65;  // "shuffle"
constexpr uint64_t kBatchSeed = 0x62617463686573;      // "batches"
constexpr int64_t kGroupedBatches = 50;

}  // namespace

std::vector<int64_t> shuffled_order(int64_t size, uint64_t seed, uint64_t epoch) {
  std::vector<int64_t> out(static_cast<size_t>(size));
  std::iota(out.begin(), out.end(), int64_t{0});
  const uint64_t stream = mix(kShuffleStream, epoch);
  PhiloxBlock block{};
  for (int64_t i = size - 1; i > 0; --i) {
    // A block holds two 64-bit numbers: i = 2k + 1 and i = 2k share block k.
    if (i == size - 1 || i % 2 == 1) {
      block = philox(seed, stream, static_cast<uint64_t>(i / 2));
    }
    const uint32_t* word = block.word + 2 * (i % 2);
    const uint64_t u = uint64_t{word[1]} << 32 | word[0];
    __extension__ using Wide = unsigned __int128;
    const auto j = static_cast<size_t>((Wide{u} * static_cast<uint64_t>(i + 1)) >> 64);
    std::swap(out[static_cast<size_t>(i)], out[j]);
  }
  return out;
}

void group_by_length(std::vector<int64_t>& order, int64_t batch_size, uint64_t seed, uint64_t epoch,
                     const std::function<int64_t(int64_t)>& length) {
  const auto size = static_cast<int64_t>(order.size());
  const int64_t full = size / batch_size;
  const int64_t run = batch_size * kGroupedBatches;
  for (int64_t begin = 0; begin < full * batch_size; begin += run) {
    const int64_t end = std::min(begin + run, full * batch_size);
    std::stable_sort(order.begin() + begin, order.begin() + end,
                     [&](int64_t a, int64_t b) { return length(a) < length(b); });
  }
  const std::vector<int64_t> batches = shuffled_order(full, mix(seed, kBatchSeed), epoch);
  std::vector<int64_t> out;
  out.reserve(order.size());
  for (const int64_t b : batches) {
    out.insert(out.end(), order.begin() + b * batch_size, order.begin() + (b + 1) * batch_size);
  }
  // What gives no full batch stays at the end, where the last step of an epoch looks for it.
  out.insert(out.end(), order.begin() + full * batch_size, order.end());
  order = std::move(out);
}

}  // namespace lithe
