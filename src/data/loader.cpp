#include "data/loader.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "data/sampling.h"
#include "tensor/core/checked.h"

namespace lithe {
namespace {

constexpr int64_t kMaxThreads = 256;
constexpr int64_t kMaxPrefetch = 1024;

void check_range(std::string_view key, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw UsageError("loader", "{} is {}; wanted {}..{}", key, value, low, high);
  }
}

}  // namespace

Loader::Loader(std::shared_ptr<const BatchSource> source, LoaderOptions options)
    : source_(std::move(source)), options_(options) {
  check_range("batch_size", options_.batch_size, 1, int64_t{1} << 24);
  check_range("threads", options_.threads, 1, kMaxThreads);
  check_range("prefetch", options_.prefetch, 1, kMaxPrefetch);
  const int64_t size = source_->size();
  steps_per_epoch_ = size / options_.batch_size;
  if (!options_.drop_last && size % options_.batch_size != 0) {
    ++steps_per_epoch_;
  }
  if (steps_per_epoch_ == 0) {
    throw UsageError("loader",
                     "{} samples give no batch of {}; lower batch_size or set drop_last to false",
                     size, options_.batch_size);
  }
}

Loader::~Loader() { stop(); }

void Loader::check_position(int64_t epoch, int64_t step) const {
  if (epoch < 0 || step < 0 || step >= steps_per_epoch_) {
    throw UsageError("loader", "epoch {}, step {}; wanted an epoch >= 0 and a step in 0..{}", epoch,
                     step, steps_per_epoch_ - 1);
  }
}

Loader::Order Loader::order(int64_t epoch) const {
  const std::lock_guard lock(order_mutex_);
  for (const auto& [known, order] : orders_) {
    if (known == epoch) {
      return order;
    }
  }
  if (orders_.size() == 2) {
    orders_.erase(orders_.begin());
  }
  auto made = std::make_shared<const std::vector<int64_t>>(make_order(epoch));
  orders_.emplace_back(epoch, made);
  return made;
}

std::vector<int64_t> Loader::make_order(int64_t epoch) const {
  const auto at = static_cast<uint64_t>(epoch);
  const auto length = [&](int64_t row) { return source_->length(row); };
  std::vector<int64_t> out;
  if (options_.shuffle) {
    out = shuffled_order(source_->size(), options_.seed, at);
    if (options_.group_by_length) {
      group_by_length(out, options_.batch_size, options_.seed, at, length);
    }
    return out;
  }
  out.resize(static_cast<size_t>(source_->size()));
  std::iota(out.begin(), out.end(), int64_t{0});
  if (options_.group_by_length) {
    std::stable_sort(out.begin(), out.end(),
                     [&](int64_t a, int64_t b) { return length(a) < length(b); });
  }
  return out;
}

void Loader::fill(int64_t epoch, int64_t step, Batch& batch) const {
  const int64_t begin = step * options_.batch_size;
  const int64_t end = std::min(begin + options_.batch_size, source_->size());
  const Order all = order(epoch);
  batch.epoch = epoch;
  batch.step = step;
  batch.rows.assign(all->begin() + begin, all->begin() + end);
  source_->fill(batch);
}

Batch Loader::batch(int64_t epoch, int64_t step) const {
  check_position(epoch, step);
  Batch out;
  fill(epoch, step, out);
  return out;
}

void Loader::start(int64_t epoch, int64_t step, std::optional<int64_t> batches) {
  check_position(epoch, step);
  stop();
  // One more than may wait: the batch that the caller holds.
  const auto slots = static_cast<size_t>(std::max(options_.prefetch, options_.threads) + 1);
  slots_.resize(std::max(slots, slots_.size()));
  for (Slot& slot : slots_) {
    slot.error = nullptr;
    slot.ready = false;
  }
  first_ = checked_add(checked_mul(epoch, steps_per_epoch_), step);
  limit_ = std::min(batches.value_or(INT64_MAX), INT64_MAX - first_);
  taken_ = read_ = released_ = 0;
  stopping_ = false;
  for (int64_t i = 0; i < options_.threads; ++i) {
    workers_.emplace_back([this] { work(); });
  }
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    slot_free_.wait(lock, [&] {
      return stopping_ || taken_ >= limit_ ||
             taken_ < released_ + static_cast<int64_t>(slots_.size());
    });
    if (stopping_ || taken_ >= limit_) {
      return;
    }
    const int64_t number = taken_++;
    Slot& slot = slots_[static_cast<size_t>(number) % slots_.size()];
    lock.unlock();
    std::exception_ptr error;
    try {
      const int64_t position = first_ + number;
      fill(position / steps_per_epoch_, position % steps_per_epoch_, slot.batch);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    slot.error = error;
    slot.ready = true;
    slot_ready_.notify_one();
  }
}

const Batch* Loader::next() {
  if (workers_.empty()) {
    throw UsageError("loader", "next() without start(); call start(epoch, step) first");
  }
  std::unique_lock lock(mutex_);
  // The batch handed out before is done with.
  if (read_ > released_) {
    slots_[static_cast<size_t>(released_) % slots_.size()].ready = false;
    released_ = read_;
    slot_free_.notify_one();
  }
  if (read_ >= limit_) {
    return nullptr;
  }
  Slot& slot = slots_[static_cast<size_t>(read_) % slots_.size()];
  slot_ready_.wait(lock, [&] { return slot.ready; });
  if (slot.error) {
    std::rethrow_exception(slot.error);  // again at each call: the loader does not skip a batch
  }
  ++read_;
  return &slot.batch;
}

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  slot_free_.notify_all();
  for (std::thread& worker : workers_) {
    worker.join();
  }
  workers_.clear();
}

}  // namespace lithe
