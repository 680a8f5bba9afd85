#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <set>
#include <thread>

#include "../io/temp_folder.h"
#include "data/image_source.h"
#include "data/loader.h"
#include "data/sampling.h"
#include "data/synthetic.h"

namespace lithe {
namespace {

constexpr ImageShape kShape{6, 5, 3};

std::shared_ptr<const ImageDataset> synthetic(int64_t size) {
  return make_synthetic_images(size, kShape, 10, 3);
}

// Labels are the indices; reading index `bad` fails, and `jitter` disturbs the workers' timing.
class Numbered final : public ImageDataset {
 public:
  Numbered(int64_t size, int64_t bad, bool jitter) : size_(size), bad_(bad), jitter_(jitter) {}
  int64_t size() const override { return size_; }
  int64_t classes() const override { return size_; }
  int64_t channels() const override { return 1; }
  std::optional<ImageShape> image_shape() const override { return ImageShape{1, 1, 1}; }
  int64_t label(int64_t index) const override { return index; }
  ImageView image(int64_t index, std::vector<uint8_t>& scratch) const override {
    if (index == bad_) {
      throw FileError("test", "image {} is damaged; replace it", index);
    }
    if (jitter_) {
      std::this_thread::sleep_for(std::chrono::microseconds(index * 7919 % 300));
    }
    scratch.assign(1, static_cast<uint8_t>(index));
    return {scratch.data(), {1, 1, 1}, 1};
  }

 private:
  int64_t size_, bad_;
  bool jitter_;
};

bool equal(const Batch& a, const Batch& b) {
  if (a.rows != b.rows || a.epoch != b.epoch || a.step != b.step ||
      a.fields.size() != b.fields.size()) {
    return false;
  }
  return std::equal(a.fields.begin(), a.fields.end(), b.fields.begin(),
                    [](const BatchField& x, const BatchField& y) {
                      return x.name == y.name && x.tensor.shape() == y.tensor.shape() &&
                             std::equal(x.tensor.data(), x.tensor.data() + x.tensor.bytes(),
                                        y.tensor.data());
                    });
}

std::shared_ptr<const ImageSource> source(std::shared_ptr<const ImageDataset> data,
                                          Transforms transforms = Transforms(), uint64_t seed = 0) {
  return std::make_shared<ImageSource>(std::move(data), std::move(transforms), seed);
}

// Samples whose length is a fixed, scrambled function of their row.
class Lengths final : public BatchSource {
 public:
  explicit Lengths(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  int64_t length(int64_t row) const override { return 1 + row * 7919 % 61; }
  void fill(Batch& batch) const override {
    batch.tokens = 0;
    for (const int64_t row : batch.rows) {
      batch.tokens = std::max(batch.tokens, length(row));
    }
  }

 private:
  int64_t size_;
};

Transforms augmented() {
  return Transforms({RandomCrop{6, 5, 2}, RandomFlip{}}, {{0.5f}, {0.25f}});
}

TEST_CASE("shuffled order: a permutation, a pure function, and uniform") {
  for (const int64_t size : {0, 1, 2, 3, 10, 1001}) {
    auto order = shuffled_order(size, 5, 1);
    CHECK(order == shuffled_order(size, 5, 1));
    if (size > 9) {
      CHECK(order != shuffled_order(size, 5, 2));
      CHECK(order != shuffled_order(size, 6, 1));
    }
    std::sort(order.begin(), order.end());
    std::vector<int64_t> identity(static_cast<size_t>(size));
    std::iota(identity.begin(), identity.end(), 0);
    CHECK(order == identity);
  }
  // All 24 orders of four, over 24000 epochs: chi-squared with 23 degrees of freedom, p = 1e-4
  // at 57.
  std::vector<int> counts(256);
  for (uint64_t epoch = 0; epoch < 24000; ++epoch) {
    const auto o = shuffled_order(4, 1, epoch);
    ++counts[static_cast<size_t>(o[0] * 64 + o[1] * 16 + o[2] * 4 + o[3])];
  }
  double chi_squared = 0;
  int kinds = 0;
  for (const int count : counts) {
    kinds += count > 0 ? 1 : 0;
    chi_squared += count > 0 ? (count - 1000.0) * (count - 1000.0) / 1000.0 : 0.0;
  }
  CHECK(kinds == 24);
  CHECK(chi_squared < 57);
}

TEST_CASE("shuffled order: the algorithm is fixed, since checkpoints depend on it") {
  CHECK(shuffled_order(10, 42, 0) == std::vector<int64_t>{8, 1, 7, 2, 5, 4, 9, 0, 6, 3});
}

TEST_CASE("loader: the background sequence equals batch(epoch, step), wherever it starts") {
  for (const int64_t threads : {1, 3}) {
    for (const bool drop_last : {false, true}) {
      CAPTURE(threads);
      CAPTURE(drop_last);
      const LoaderOptions options{
          .batch_size = 8, .seed = 11, .shuffle = true, .drop_last = drop_last, .threads = threads};
      const Loader pure(source(synthetic(45), augmented(), 11), options);
      Loader loader(source(synthetic(45), augmented(), 11), options);
      CHECK(loader.steps_per_epoch() == (drop_last ? 5 : 6));
      for (const auto& [epoch, step] : {std::pair{0, 0}, {2, 3}, {0, 4}}) {
        loader.start(epoch, step);
        for (int64_t n = step; n < step + 14; ++n) {
          const Batch* batch = loader.next();
          REQUIRE(batch != nullptr);
          CHECK(equal(*batch, pure.batch(epoch + n / loader.steps_per_epoch(),
                                         n % loader.steps_per_epoch())));
        }
      }
    }
  }
}

TEST_CASE("loader: an epoch holds each image once, and thread timing changes nothing") {
  const auto data = std::make_shared<Numbered>(50, -1, true);
  std::vector<std::vector<int64_t>> runs;
  for (const int64_t threads : {1, 2, 4}) {
    Loader loader(source(data),
                  {.batch_size = 3, .seed = 1, .shuffle = true, .threads = threads, .prefetch = 3});
    loader.start(1, 0, loader.steps_per_epoch());
    std::vector<int64_t> labels;
    while (const Batch* batch = loader.next()) {
      for (size_t i = 0; i < batch->rows.size(); ++i) {
        labels.push_back(batch->find("labels")->as<int64_t>()[i]);
        CHECK(labels.back() == batch->rows[i]);
        CHECK(std::lround(batch->find("pixels")->as<float>()[i] * 255) == labels.back());
      }
    }
    CHECK(loader.next() == nullptr);
    CHECK(std::set<int64_t>(labels.begin(), labels.end()).size() == 50);
    CHECK(labels.size() == 50);
    runs.push_back(labels);
  }
  CHECK(runs[0] == shuffled_order(50, 1, 1));
  CHECK(runs[0] == runs[1]);
  CHECK(runs[0] == runs[2]);
}

TEST_CASE("loader: the last batch of an epoch has the rows that are left, also in reused buffers") {
  Loader loader(source(synthetic(10), Transforms({}, {{0.9f}, {0.1f}})),
                {.batch_size = 4, .prefetch = 1});
  loader.start(0, 0, 9);
  int64_t n = 0;
  for (; const Batch* batch = loader.next(); ++n) {
    const int64_t wanted = n % 3 == 2 ? 2 : 4;
    CHECK(batch->count() == wanted);
    CHECK(batch->find("pixels")->shape() == Shape{wanted, 6, 5, 3});
    CHECK(batch->find("labels")->shape() == Shape{wanted});
    CHECK(equal(*batch, loader.batch(n / 3, n % 3)));
  }
  CHECK(n == 9);
  Loader even(source(synthetic(8)), {.batch_size = 4, .prefetch = 1});
  even.start(0, 0, 6);
  std::set<const void*> buffers;
  while (const Batch* batch = even.next()) {
    buffers.insert(batch->find("pixels")->data());
  }
  CHECK(buffers.size() == 2);  // nothing is allocated a batch
}

TEST_CASE("loader: grouping by length pads little, keeps every row and is a pure function") {
  const auto data = std::make_shared<Lengths>(1003);
  const auto padded = [&](bool grouped) {
    const Loader loader(data,
                        {.batch_size = 16, .seed = 4, .shuffle = true, .group_by_length = grouped});
    std::set<int64_t> rows;
    int64_t tokens = 0;
    for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
      const Batch batch = loader.batch(2, step);
      CHECK(batch.count() == (step == 62 ? 11 : 16));
      CHECK(batch.rows == loader.batch(2, step).rows);
      rows.insert(batch.rows.begin(), batch.rows.end());
      tokens += batch.tokens * batch.count();
    }
    CHECK(rows.size() == 1003);
    CHECK(loader.batch(2, 0).rows != loader.batch(3, 0).rows);
    return tokens;
  };
  CHECK(padded(true) < padded(false) * 3 / 4);
}

TEST_CASE("loader: a worker's error arrives at its batch, and the loader can start again") {
  for (const int64_t threads : {1, 3}) {
    Loader loader(source(std::make_shared<Numbered>(20, 9, false)),
                  {.batch_size = 4, .threads = threads});
    CHECK(has(message_of<UsageError>([&] { loader.next(); }), "without start()"));
    loader.start(0, 0);
    CHECK(loader.next()->step == 0);
    CHECK(loader.next()->step == 1);
    CHECK(has(message_of<FileError>([&] { loader.next(); }), "image 9 is damaged"));
    CHECK(has(message_of<FileError>([&] { loader.next(); }), "image 9 is damaged"));
    loader.start(0, 3);
    CHECK(loader.next()->step == 3);
    CHECK(has(message_of<FileError>([&] { loader.batch(0, 2); }), "image 9 is damaged"));
  }
}

TEST_CASE("loader: stopping and destruction do not hang at any moment") {
  for (int pulled = 0; pulled < 6; ++pulled) {
    Loader loader(source(std::make_shared<Numbered>(100, -1, true)),
                  {.batch_size = 5, .shuffle = true, .threads = 2});
    loader.start(0, 0, pulled == 5 ? 5 : 1000);
    for (int i = 0; i < pulled; ++i) {
      loader.next();
    }
    if (pulled % 2 == 0) {
      loader.stop();
    }
  }
}

TEST_CASE("loader: options out of range are refused") {
  const auto refusal = [](LoaderOptions options) {
    return message_of<UsageError>([&] { Loader(source(synthetic(10)), options); });
  };
  CHECK(has(refusal({.batch_size = 0}), "batch_size is 0"));
  CHECK(has(refusal({.threads = 0}), "threads is 0"));
  CHECK(has(refusal({.prefetch = 0}), "prefetch is 0"));
  CHECK(has(refusal({.batch_size = 16, .drop_last = true}), "10 samples give no batch of 16"));
  const Loader loader(source(synthetic(10)), {.batch_size = 16});
  CHECK(loader.batch(0, 0).count() == 10);
  CHECK(has(message_of<UsageError>([&] { loader.batch(0, 1); }), "a step in 0..0"));
  CHECK(has(message_of<UsageError>([&] { loader.batch(-1, 0); }), "epoch -1"));
}

}  // namespace
}  // namespace lithe
