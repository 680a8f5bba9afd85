// Batches of a dataset, made in the background. Batch (epoch, step) is a pure function of dataset,
// transforms and options, so a resumed run sees what the uninterrupted one would have seen.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "data/transforms.h"
#include "tensor/core/tensor.h"

namespace lithe {

// Label of the rows that fill up a last, partial batch; the cross-entropy op skips it.
inline constexpr int64_t kIgnoreLabel = -100;

struct Batch {
  Tensor images;      // fp32 [B, H, W, C]; rows from `count` on are zero
  Tensor labels;      // int64 [B]; kIgnoreLabel from `count` on
  int64_t count = 0;  // images in it, 1..B
  int64_t epoch = 0;
  int64_t step = 0;
};

struct LoaderOptions {
  int64_t batch_size = 1;
  uint64_t seed = 0;
  bool shuffle = false;
  bool drop_last = false;  // leave out a last batch that is not full
  int64_t threads = 1;     // background workers; each makes whole batches
  int64_t prefetch = 2;    // finished batches that may wait (at least `threads`)
};

// The order of one epoch: a permutation of [0, size) that depends on (size, seed, epoch) only.
// Fisher-Yates from the end; the swap partner of position i is floor(u * (i + 1) / 2^64) with u the
// i-th 64-bit number of the Philox stream of the epoch.
std::vector<int64_t> shuffled_order(int64_t size, uint64_t seed, uint64_t epoch);

class Loader {
 public:
  // Throws UsageError for option values out of range, no full batch with drop_last, or transforms
  // that do not give one shape.
  Loader(std::shared_ptr<const ImageDataset> dataset, Transforms transforms, LoaderOptions options);
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  ~Loader();  // stops and joins

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  ImageShape image_shape() const { return shape_; }
  const ImageDataset& dataset() const { return *dataset_; }

  // The batch, made here and now. Throws what dataset and transforms throw.
  Batch batch(int64_t epoch, int64_t step) const;

  // Starts (or restarts) the workers at (epoch, step); they run on through the epochs, or for
  // `batches` batches.
  void start(int64_t epoch, int64_t step, std::optional<int64_t> batches = std::nullopt);
  // The next batch, valid until the following call of next(), start() or stop(), when its buffers
  // are used again; null after the last one. Rethrows a worker's error at the batch it belongs to.
  const Batch* next();
  void stop();

 private:
  struct Slot {
    Batch batch;
    std::exception_ptr error;
    bool ready = false;
  };
  struct WorkerScratch {
    std::vector<uint8_t> pixels;
    Transforms::Scratch transforms;
  };
  using Order = std::shared_ptr<const std::vector<int64_t>>;

  Batch empty_batch() const;
  void fill(int64_t epoch, int64_t step, Batch& batch, WorkerScratch& scratch) const;
  Order order(int64_t epoch) const;
  void check_position(int64_t epoch, int64_t step) const;
  void work();

  std::shared_ptr<const ImageDataset> dataset_;
  Transforms transforms_;
  LoaderOptions options_;
  ImageShape shape_;
  int64_t steps_per_epoch_ = 0;

  // Workers of two neighbouring epochs overlap, hence two orders.
  mutable std::mutex order_mutex_;
  mutable std::vector<std::pair<int64_t, Order>> orders_;

  // Batch n of this start() lives in slot n % slots; slots are made once and used again.
  std::mutex mutex_;
  std::condition_variable slot_free_;
  std::condition_variable slot_ready_;
  std::vector<Slot> slots_;
  std::vector<std::thread> workers_;
  int64_t first_ = 0;     // epoch * steps_per_epoch + step of batch 0
  int64_t limit_ = 0;     // batches of this start()
  int64_t taken_ = 0;     // batches that workers have begun
  int64_t read_ = 0;      // batches that next() has handed out
  int64_t released_ = 0;  // batches whose slot may be used again
  bool stopping_ = false;
};

}  // namespace lithe
