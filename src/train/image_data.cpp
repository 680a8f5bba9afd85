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

void add_image_options(recipe::Schema& schema) {
  using recipe::Type;
  schema
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
            .help = "divided by after that"});
}

std::shared_ptr<const ImageSource> open_image_data(const recipe::Recipe& data,
                                                   const ImageTarget& target, bool train,
                                                   uint64_t seed) {
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
  return std::make_shared<ImageSource>(dataset, make_transforms(data, *dataset, target, train),
                                       seed);
}

}  // namespace lithe
