// Batches of a source, made in the background. Batch (epoch, step) is a pure function of source and
// options, so a resumed run sees what the uninterrupted one would have seen.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "data/batch.h"

namespace lithe {

struct LoaderOptions {
  int64_t batch_size = 1;
  uint64_t seed = 0;
  bool shuffle = false;
  bool group_by_length = false;  // batches of similar length; see sampling.h
  bool drop_last = false;        // leave out a last batch that is not full
  int64_t threads = 1;           // background workers; each makes whole batches
  int64_t prefetch = 2;          // finished batches that may wait (at least `threads`)
};

class Loader {
 public:
  // Throws UsageError for option values out of range, or no full batch with drop_last.
  Loader(std::shared_ptr<const BatchSource> source, LoaderOptions options);
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  ~Loader();  // stops and joins

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  const BatchSource& source() const { return *source_; }

  // The batch, made here and now; the last of an epoch may be smaller. Throws what the source
  // throws.
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
  using Order = std::shared_ptr<const std::vector<int64_t>>;

  void fill(int64_t epoch, int64_t step, Batch& batch) const;
  Order order(int64_t epoch) const;
  std::vector<int64_t> make_order(int64_t epoch) const;
  void check_position(int64_t epoch, int64_t step) const;
  void work();

  std::shared_ptr<const BatchSource> source_;
  LoaderOptions options_;
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
