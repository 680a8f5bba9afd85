#include "train/training_data.h"

#include "train/image_data.h"
#include "train/text_data.h"

namespace lithe {
namespace {

TrainingData open_images(const recipe::Recipe& recipe, const nn::Model& model) {
  const nlohmann::json config = model.config();
  const ImageTarget target{.size = config.at("image_size").get<int64_t>(),
                           .channels = config.at("num_channels").get<int64_t>(),
                           .classes = static_cast<int64_t>(config.at("id2label").size())};
  const auto seed = static_cast<uint64_t>(recipe.integer("seed"));
  const recipe::Recipe data = recipe.section("data");
  TrainingData out;
  out.train = open_image_data(data, target, true, seed);
  if (recipe.integer("eval.every_steps") >= 0) {
    out.eval = open_image_data(data, target, false, seed);
  }
  out.evaluation = [classes = target.classes] { return make_classification_evaluation(classes); };
  return out;
}

}  // namespace

recipe::Schema data_options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "kind",
            .type = Type::string,
            .fallback = std::string("synthetic"),
            .help = "images: idx (MNIST's files), cifar10, cifar100, folder (a subfolder a class); "
                    "texts: glue, table (TSV, CSV, JSON lines), squad; either: synthetic",
            .choices = {"idx", "cifar10", "cifar100", "folder", "glue", "table", "squad",
                        "synthetic"}})
      .add({.key = "path",
            .type = Type::path,
            .fallback = std::string(),
            .help = "folder of the files (folder: of the training images; table, squad: the "
                    "training file)"})
      .add({.key = "eval_path",
            .type = Type::path,
            .fallback = std::string(),
            .help = "the evaluation images or file; default for images: data.path"})
      .add({.key = "drop_last",
            .type = Type::boolean,
            .fallback = false,
            .help = "leave out an epoch's last batch when it is not full"})
      .add({.key = "group_by_length",
            .type = Type::boolean,
            .fallback = false,
            .help = "texts: batches of similar length, so that less is padded"})
      .add({.key = "threads",
            .type = Type::integer,
            .fallback = int64_t{1},
            .help = "background threads that prepare batches",
            .min = 1,
            .max = 256})
      .add({.key = "synthetic_size",
            .type = Type::integer,
            .fallback = int64_t{1024},
            .help = "samples of the synthetic set",
            .min = 1,
            .max = 1 << 26});
  add_text_options(schema);
  add_image_options(schema);
  return schema;
}

TrainingData open_training_data(const recipe::Recipe& recipe, const nn::Model& model) {
  return model.input_kind() == nn::InputKind::text ? open_text_data(recipe, model)
                                                   : open_images(recipe, model);
}

}  // namespace lithe
