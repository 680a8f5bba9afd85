#include "train/options.h"

#include "compress/passes.h"
#include "nn/model_kinds.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/core/error.h"
#include "train/training_data.h"

namespace lithe {
namespace {

using recipe::Schema;
using recipe::Type;

// So that products of steps, epochs and micro-batches stay within 64 bits.
constexpr double kMostSteps = 0x1p40;

Schema model_options() {
  Schema schema;
  schema
      .add({.key = "path",
            .type = Type::path,
            .help = "Hugging Face folder with config.json and model.safetensors"})
      .add({.key = "weights",
            .type = Type::string,
            .fallback = std::string("random"),
            .help = "start from random weights (of the seed) or from those in model.path",
            .choices = {"random", "pretrained"}})
      .add({.key = "allow_unexpected",
            .type = Type::boolean,
            .fallback = false,
            .help = "accept tensors in the file that the model does not have"})
      .add(
          {.key = "reinit",
           .type = Type::string_list,
           .fallback = std::vector<std::string>{},
           .help =
               "parameters to draw from the seed instead of loading (a new head); * and ? allowed"})
      .add({.key = "attention",
            .type = Type::string,
            .fallback = std::string("fused"),
            .help = "fused never stores the T x T probabilities; unfused is the textbook form",
            .choices = {"fused", "unfused"}})
      .add({.key = "attention_dropout",
            .type = Type::string,
            .fallback = std::string("probabilities"),
            .help = "what attention's dropout drops; values is what SlimFit's authors do",
            .choices = {"probabilities", "values"}})
      .add({.key = "type",
            .type = Type::string,
            .fallback = std::string("vit"),
            .help = "architecture, where model.path gives no config.json",
            .choices = nn::model_type_names()})
      .add({.key = "task",
            .type = Type::string,
            .fallback = std::string("auto"),
            .help = "what the head predicts; auto: what the data or config.json says",
            .choices = {"auto", "classification", "regression", "span"}});
  for (const nn::ModelKind& kind : nn::model_kinds()) {
    schema.section(std::string(kind.type), kind.options(),
                   "fields of config.json, over those of model.path");
  }
  return schema;
}

Schema loop_options() {
  Schema schema;
  schema
      .add({.key = "batch_size",
            .type = Type::integer,
            .fallback = int64_t{32},
            .help = "samples in one forward",
            .min = 1,
            .max = 1 << 20})
      .add({.key = "accumulate",
            .type = Type::integer,
            .fallback = int64_t{1},
            .help = "micro-batches added up before one update",
            .min = 1,
            .max = 1 << 20})
      .add({.key = "epochs",
            .type = Type::integer,
            .fallback = int64_t{1},
            .help = "passes over the training data",
            .min = 1,
            .max = 1 << 20})
      .add({.key = "steps",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "updates in all; 0: as many as the epochs have",
            .min = 0,
            .max = kMostSteps})
      .add({.key = "compute",
            .type = Type::string,
            .fallback = std::string("fp32"),
            .help = "dtype of activations and products; weights and their updates stay fp32",
            .choices = {"fp32", "bf16"}})
      .add({.key = "tf32",
            .type = Type::boolean,
            .fallback = false,
            .help = "fp32 products on CUDA with 10 bits of mantissa (TF32), several times faster"})
      .add({.key = "deterministic",
            .type = Type::boolean,
            .fallback = true,
            .help = "the same bits in every run; false lets CUDA libraries trade that for speed"})
      .add({.key = "fuse",
            .type = Type::boolean,
            .fallback = true,
            .help = "run chains of ops as one kernel; false for comparing"})
      .add({.key = "clip_norm",
            .type = Type::number,
            .fallback = 0.0,
            .help = "largest global norm of the gradients; 0: no clipping",
            .min = 0})
      .add({.key = "label_smoothing",
            .type = Type::number,
            .fallback = 0.0,
            .help = "share of the target spread over all classes",
            .min = 0,
            .max = 0.99});
  return schema;
}

Schema eval_options() {
  Schema schema;
  schema
      .add({.key = "every_steps",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "updates between evaluations; 0: after each epoch; -1: never",
            .min = -1})
      .add({.key = "batch_size",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "samples in one evaluation batch; 0: that of training",
            .min = 0,
            .max = 1 << 20});
  return schema;
}

Schema checkpoint_options() {
  Schema schema;
  schema
      .add({.key = "every_steps",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "updates between checkpoints; 0: only at the end",
            .min = 0})
      .add({.key = "keep",
            .type = Type::integer,
            .fallback = int64_t{2},
            .help = "checkpoints to keep",
            .min = 1})
      .add({.key = "final",
            .type = Type::boolean,
            .fallback = true,
            .help = "write one at the end, and the model in Hugging Face's layout"});
  return schema;
}

}  // namespace

Schema train_options() {
  Schema schema;
  schema
      .add({.key = "name",
            .type = Type::string,
            .help = "name of the run; default: the recipe's file name"})
      .add({.key = "seed",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "seed of weights, order, augmentation and dropout",
            .min = 0})
      .add(
          {.key = "codecs",
           .type = Type::string,
           .fallback = std::string("none"),
           .help =
               "short for codec.preset, with what the preset is made for: slimfit_original sets "
               "model.attention: unfused and model.attention_dropout: values where the recipe does "
               "not name them",
           .choices = {"none", "slimfit_original", "slimfit"}});
  schema.section("model", model_options(), "what is trained");
  schema.section("data", data_options(), "what it is trained on");
  schema.section("train", loop_options(), "the loop");
  schema.section("optimizer", optimizer_options(), "how weights are updated");
  schema.section("schedule", schedule_options(), "the learning rate over time");
  schema.section("eval", eval_options(), "measuring on held-out data");
  schema.section("checkpoint", checkpoint_options(), "what is saved when");
  add_pass_options(schema);
  return schema;
}

recipe::Recipe load_train_recipe(const std::string& path, std::span<const std::string> overrides) {
  const Schema schema = train_options();
  recipe::Recipe plain = recipe::Recipe::load(path, schema, overrides);
  const std::string preset = plain.string("codecs");
  if (preset == "none") {
    return plain;
  }
  const bool named = plain.enabled("codec") && plain.given("codec.preset");
  if (named && plain.string("codec.preset") != preset) {
    throw UsageError("codecs", "{}: '{}', but {} says codec.preset: {}; leave one of them out",
                     plain.where("codecs"), preset, plain.where("codec.preset"),
                     plain.string("codec.preset"));
  }
  std::vector<std::string> all = {"codec.preset=" + preset};
  if (preset == "slimfit_original" && !plain.given("model.attention")) {
    all.emplace_back("model.attention=unfused");
  }
  if (preset == "slimfit_original" && !plain.given("model.attention_dropout")) {
    all.emplace_back("model.attention_dropout=values");
  }
  all.insert(all.end(), overrides.begin(), overrides.end());
  return recipe::Recipe::load(path, schema, all);
}

}  // namespace lithe
