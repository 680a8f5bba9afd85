#include "train/image_data.h"

#include "data/open.h"

namespace lithe {
namespace {

std::vector<float> to_floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

Transforms make_transforms(const recipe::Recipe& data, const ImageDataset& dataset,
                           const ImageTarget& target, bool train) {
  const auto shape = dataset.image_shape();
  const int64_t size = target.size;
  const bool fits = shape && shape->height == size && shape->width == size;
  std::vector<Transform> steps;
  if (train && data.boolean("random_resized_crop")) {
    steps.emplace_back(RandomResizedCrop{.height = size, .width = size});
  } else if (!fits) {
    if (data.string("resize") == "stretch") {
      steps.emplace_back(Resize{.height = size, .width = size});
    } else {
      steps.emplace_back(ResizeShorter{.size = size});
      steps.emplace_back(CenterCrop{.height = size, .width = size});
    }
  }
  if (train && data.integer("crop_padding") > 0) {
    steps.emplace_back(
        RandomCrop{.height = size, .width = size, .padding = data.integer("crop_padding")});
  }
  if (train && data.boolean("flip")) {
    steps.emplace_back(RandomFlip{});
  }
  return Transforms(std::move(steps),
                    {to_floats(data.numbers("mean")), to_floats(data.numbers("std"))});
}

}  // namespace

recipe::Schema image_data_options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "kind",
            .type = Type::string,
            .fallback = std::string("synthetic"),
            .help =
                "idx (MNIST's files), cifar10, cifar100, folder (a subfolder a class) or synthetic",
            .choices = {"idx", "cifar10", "cifar100", "folder", "synthetic"}})
      .add({.key = "path",
            .type = Type::path,
            .fallback = std::string(),
            .help = "folder of the files; for folder, of the training images"})
      .add({.key = "eval_path",
            .type = Type::path,
            .fallback = std::string(),
            .help = "folder of the evaluation images; default: data.path"})
      .add({.key = "resize",
            .type = Type::string,
            .fallback = std::string("crop"),
            .help = "images of another size: crop (shorter side, then centre) or stretch",
            .choices = {"crop", "stretch"}})
      .add({.key = "random_resized_crop",
            .type = Type::boolean,
            .fallback = false,
            .help = "train on random windows"})
      .add({.key = "crop_padding",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "train on crops of images padded by so many pixels",
            .min = 0,
            .max = 1024})
      .add({.key = "flip",
            .type = Type::boolean,
            .fallback = false,
            .help = "mirror half of the training images"})
      .add({.key = "mean",
            .type = Type::number_list,
            .fallback = std::vector<double>{0.5},
            .help = "subtracted from pixels in 0..1; one value, or one a channel"})
      .add({.key = "std",
            .type = Type::number_list,
            .fallback = std::vector<double>{0.5},
            .help = "divided by after that"})
      .add({.key = "threads",
            .type = Type::integer,
            .fallback = int64_t{1},
            .help = "background threads that prepare batches",
            .min = 1,
            .max = 256})
      .add({.key = "synthetic_size",
            .type = Type::integer,
            .fallback = int64_t{1024},
            .help = "images of the synthetic set",
            .min = 1,
            .max = 1 << 26});
  return schema;
}

std::unique_ptr<Loader> make_image_loader(const recipe::Recipe& data, const ImageTarget& target,
                                          bool train, int64_t batch_size, uint64_t seed) {
  DataSpec spec;
  spec.kind = data.string("kind");
  spec.path =
      !train && !data.string("eval_path").empty() ? data.string("eval_path") : data.string("path");
  spec.train = train;
  spec.synthetic_size = data.integer("synthetic_size");
  spec.height = spec.width = target.size;
  spec.channels = target.channels;
  spec.classes = spec.kind == "synthetic" ? target.classes : 0;
  spec.seed = seed;
  std::shared_ptr<const ImageDataset> dataset = open_image_dataset(spec);
  if (dataset->channels() != target.channels) {
    throw UsageError("data",
                     "{}: the images have {} channels, the model takes {}; set num_channels",
                     data.where("kind"), dataset->channels(), target.channels);
  }
  if (dataset->classes() > target.classes) {
    throw UsageError("data", "{}: the data has {} classes, the model {}; set num_labels",
                     data.where("kind"), dataset->classes(), target.classes);
  }
  LoaderOptions options;
  options.batch_size = batch_size;
  options.seed = seed;
  options.shuffle = train;
  options.drop_last = train && dataset->size() >= batch_size;
  options.threads = data.integer("threads");
  return std::make_unique<Loader>(dataset, make_transforms(data, *dataset, target, train), options);
}

}  // namespace lithe
