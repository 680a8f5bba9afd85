// The order in which an epoch visits samples: pure functions, since a resumed run has to repeat
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace lithe {

// A permutation of [0, size) that depends on (size, seed, epoch) only. Fisher-Yates from the end;
// the swap partner of position i is floor(u * (i + 1) / 2^64) with u the i-th 64-bit number of the
// Philox stream of the epoch.
std::vector<int64_t> shuffled_order(int64_t size, uint64_t seed, uint64_t epoch);

// Turns an order into one whose batches hold samples of similar length, so that little is padded:
// runs of 50 batches are sorted by length, then the full batches are shuffled.
void group_by_length(std::vector<int64_t>& order, int64_t batch_size, uint64_t seed, uint64_t epoch,
                     const std::function<int64_t(int64_t)>& length);

}  // namespace lithe
