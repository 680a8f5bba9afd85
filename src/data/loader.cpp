#include "data/loader.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "tensor/core/checked.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr uint64_t kShuffleStream = 0x73687566666c65;  // "shuffle"
constexpr int64_t kMaxThreads = 256;
constexpr int64_t kMaxPrefetch = 1024;

void check_range(std::string_view key, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw UsageError("loader", "{} is {}; wanted {}..{}", key, value, low, high);
  }
}

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

Loader::Loader(std::shared_ptr<const ImageDataset> dataset, Transforms transforms,
               LoaderOptions options)
    : dataset_(std::move(dataset)), transforms_(std::move(transforms)), options_(options) {
  check_range("batch_size", options_.batch_size, 1, int64_t{1} << 24);
  check_range("threads", options_.threads, 1, kMaxThreads);
  check_range("prefetch", options_.prefetch, 1, kMaxPrefetch);
  shape_ = transforms_.output_shape(dataset_->image_shape(), dataset_->channels());
  const int64_t size = dataset_->size();
  steps_per_epoch_ = size / options_.batch_size;
  if (!options_.drop_last && size % options_.batch_size != 0) {
    ++steps_per_epoch_;
  }
  if (steps_per_epoch_ == 0) {
    throw UsageError("loader",
                     "{} images give no batch of {}; lower batch_size or set drop_last to false",
                     size, options_.batch_size);
  }
}

Loader::~Loader() { stop(); }

Batch Loader::empty_batch() const {
  Batch out;
  out.images =
      Tensor(DType::f32, {options_.batch_size, shape_.height, shape_.width, shape_.channels});
  out.labels = Tensor(DType::i64, {options_.batch_size});
  return out;
}

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
  auto made = std::make_shared<const std::vector<int64_t>>(
      shuffled_order(dataset_->size(), options_.seed, static_cast<uint64_t>(epoch)));
  orders_.emplace_back(epoch, made);
  return made;
}

void Loader::fill(int64_t epoch, int64_t step, Batch& batch, WorkerScratch& scratch) const {
  const int64_t begin = step * options_.batch_size;
  batch.count = std::min(options_.batch_size, dataset_->size() - begin);
  batch.epoch = epoch;
  batch.step = step;
  const Order shuffled = options_.shuffle ? order(epoch) : nullptr;
  const auto image_size = static_cast<size_t>(shape_.height * shape_.width * shape_.channels);
  const std::span<float> images = batch.images.as<float>();
  const std::span<int64_t> labels = batch.labels.as<int64_t>();
  const auto count = static_cast<size_t>(batch.count);
  for (size_t row = 0; row < count; ++row) {
    const int64_t position = begin + static_cast<int64_t>(row);
    const int64_t index = shuffled ? (*shuffled)[static_cast<size_t>(position)] : position;
    const AugmentKey key{options_.seed, static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)};
    transforms_.apply(dataset_->image(index, scratch.pixels), key, shape_,
                      images.subspan(row * image_size, image_size), scratch.transforms);
    labels[row] = dataset_->label(index);
  }
  std::fill(images.begin() + static_cast<std::ptrdiff_t>(count * image_size), images.end(), 0.0f);
  std::fill(labels.begin() + static_cast<std::ptrdiff_t>(count), labels.end(), kIgnoreLabel);
}

Batch Loader::batch(int64_t epoch, int64_t step) const {
  check_position(epoch, step);
  Batch out = empty_batch();
  WorkerScratch scratch;
  fill(epoch, step, out, scratch);
  return out;
}

void Loader::start(int64_t epoch, int64_t step, std::optional<int64_t> batches) {
  check_position(epoch, step);
  stop();
  // One more than may wait: the batch that the caller holds.
  const auto slots = static_cast<size_t>(std::max(options_.prefetch, options_.threads) + 1);
  while (slots_.size() < slots) {
    slots_.push_back({empty_batch(), nullptr, false});
  }
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
  WorkerScratch scratch;
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
      fill(position / steps_per_epoch_, position % steps_per_epoch_, slot.batch, scratch);
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
