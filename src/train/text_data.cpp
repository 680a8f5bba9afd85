#include "train/text_data.h"

#include <algorithm>

#include "data/squad.h"
#include "data/text_examples.h"
#include "data/text_source.h"
#include "tensor/core/philox.h"
#include "train/squad_evaluation.h"

namespace lithe {
namespace {

constexpr int64_t kPadMultiple = 8;

// Everything that the splits share.
struct TextSetup {
  recipe::Recipe recipe;
  recipe::Recipe data;
  const nn::Model& model;
  std::unique_ptr<Tokenizer> tokenizer;
  TextSourceOptions source;
  bool evaluates = false;
};

std::string eval_path(const TextSetup& setup) {
  std::string path = setup.data.string("eval_path");
  if (path.empty()) {
    throw UsageError("data.eval_path",
                     "{}: no evaluation file is named; name one, or set eval.every_steps=-1",
                     setup.data.where("eval_path"));
  }
  return path;
}

std::string train_path(const TextSetup& setup) {
  std::string path = setup.data.string("path");
  if (path.empty()) {
    throw UsageError("data.path", "{}: no file is named", setup.data.where("path"));
  }
  return path;
}

std::unique_ptr<Tokenizer> open_run_tokenizer(const recipe::Recipe& recipe,
                                              const nn::Model& model) {
  std::string path = recipe.string("data.tokenizer");
  if (path.empty()) {
    if (!recipe.has("model.path")) {
      throw UsageError("data.tokenizer",
                       "{}: texts need a tokenizer; name its folder, or a model.path that has one",
                       recipe.where("data.tokenizer"));
    }
    path = recipe.string("model.path");
  }
  std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(path);
  const auto vocabulary = model.config().at("vocab_size").get<int64_t>();
  if (tokenizer->vocabulary_size() > vocabulary) {
    throw UsageError("data.tokenizer",
                     "{} has {} tokens, the model's embeddings only {}; use the model's own", path,
                     tokenizer->vocabulary_size(), vocabulary);
  }
  return tokenizer;
}

TextSetup make_setup(const recipe::Recipe& recipe, const nn::Model& model) {
  TextSetup setup{.recipe = recipe,
                  .data = recipe.section("data"),
                  .model = model,
                  .tokenizer = open_run_tokenizer(recipe, model),
                  .source = {},
                  .evaluates = recipe.integer("eval.every_steps") >= 0};
  setup.source.max_length = setup.data.integer("max_length");
  setup.source.padding =
      setup.data.string("padding") == "fixed" ? TextPadding::fixed : TextPadding::longest;
  setup.source.pad_multiple = kPadMultiple;
  setup.source.pad_id = setup.tokenizer->pad_id();
  return setup;
}

int64_t longest_batch(const EncodedTexts& texts, const TextSourceOptions& options) {
  if (options.padding == TextPadding::fixed) {
    return options.max_length;
  }
  int64_t longest = 0;
  for (int64_t row = 0; row < texts.rows(); ++row) {
    longest = std::max(longest, texts.length(row));
  }
  return std::min(options.max_length, (longest + kPadMultiple - 1) / kPadMultiple * kPadMultiple);
}

std::string describe(std::string_view split, const EncodedTexts& texts, int64_t skipped) {
  const double mean = static_cast<double>(texts.ids.size()) /
                      static_cast<double>(std::max<int64_t>(1, texts.rows()));
  return fmt::format("data: {} rows of {}, {:.1f} tokens on average{}", texts.rows(), split, mean,
                     skipped == 0 ? "" : fmt::format("; {} malformed rows left out", skipped));
}

// ---- labelled texts

TableExampleOptions table_options(const recipe::Recipe& data, const nn::Model& model) {
  TableExampleOptions options;
  options.table.format = parse_table_format(data.string("format"));
  options.table.header = data.boolean("header");
  options.text_column = data.string("text_column");
  options.pair_column = data.string("pair_column");
  options.label_column = data.string("label_column");
  options.label_names = data.strings("labels");
  options.regression = model.task() == nn::Task::regression;
  return options;
}

void check_labels(const TextSetup& setup, const TextExamples& examples, const std::string& path) {
  const nlohmann::json config = setup.model.config();
  const auto classes = static_cast<int64_t>(config.at("id2label").size());
  const auto found = static_cast<int64_t>(examples.label_names.size());
  if (!examples.regression && found != classes) {
    throw UsageError("data",
                     "{} has {} labels ({}), the model {}; name them in data.labels, in the order "
                     "of the model's classes",
                     path, found, fmt::join(examples.label_names, ", "), classes);
  }
}

std::shared_ptr<const TextSource> encode(const TextSetup& setup, const TextExamples& examples,
                                         std::string_view split, TrainingData& out) {
  auto texts = std::make_shared<const EncodedTexts>(
      encode_examples(examples, *setup.tokenizer, setup.source.max_length));
  out.longest = std::max(out.longest, longest_batch(*texts, setup.source));
  out.lines.push_back(describe(split, *texts, examples.skipped));
  return std::make_shared<TextSource>(std::move(texts), setup.source);
}

TrainingData open_labelled(const TextSetup& setup) {
  TrainingData out;
  const bool glue = setup.data.string("kind") == "glue";
  const std::string path = train_path(setup);
  TextExamples train;
  TextExamples eval;
  if (glue) {
    const std::string task = setup.data.string("task");
    train = read_glue(path, task, "train");
    if (setup.evaluates) {
      eval = read_glue(path, task, "dev");
    }
  } else {
    TableExampleOptions options = table_options(setup.data, setup.model);
    train = read_table_examples(path, options);
    options.label_names = train.label_names;
    if (setup.evaluates) {
      eval = read_table_examples(eval_path(setup), options);
    }
  }
  check_labels(setup, train, path);
  out.train = encode(setup, train, "training", out);
  if (setup.evaluates) {
    out.eval = encode(setup, eval, "evaluation", out);
  }
  if (setup.model.task() == nn::Task::regression) {
    out.evaluation = make_regression_evaluation;
  } else {
    const std::string main =
        glue ? std::string(glue_task(setup.data.string("task")).metrics.front()) : "accuracy";
    const auto classes = static_cast<int64_t>(train.label_names.size());
    out.evaluation = [=] { return make_classification_evaluation(classes, main); };
  }
  return out;
}

// ---- questions about texts

std::shared_ptr<SquadSplit> read_split(const TextSetup& setup, const std::string& path,
                                       bool keep_spans) {
  auto split = std::make_shared<SquadSplit>();
  split->data = read_squad(path);
  split->features = squad_features(split->data, *setup.tokenizer,
                                   {.max_length = setup.source.max_length,
                                    .stride = setup.data.integer("stride"),
                                    .keep_spans = keep_spans});
  return split;
}

std::shared_ptr<const TextSource> window_source(const TextSetup& setup,
                                                const std::shared_ptr<SquadSplit>& split,
                                                std::string_view name, TrainingData& out) {
  // Shares the split's life.
  std::shared_ptr<const EncodedTexts> texts(split, &split->features.texts);
  out.longest = std::max(out.longest, longest_batch(*texts, setup.source));
  out.lines.push_back(
      fmt::format("{} of {} questions", describe(name, *texts, 0), split->data.questions.size()));
  return std::make_shared<TextSource>(std::move(texts), setup.source);
}

TrainingData open_questions(const TextSetup& setup) {
  TrainingData out;
  out.train = window_source(setup, read_split(setup, train_path(setup), false), "training", out);
  if (setup.evaluates) {
    const std::shared_ptr<SquadSplit> eval = read_split(setup, eval_path(setup), true);
    out.eval = window_source(setup, eval, "evaluation", out);
    const SquadDecodeOptions options{
        .best = setup.data.integer("n_best"),
        .max_answer_tokens = setup.data.integer("max_answer_length"),
        .no_answer = std::any_of(eval->data.questions.begin(), eval->data.questions.end(),
                                 [](const SquadQuestion& q) { return q.answers.empty(); }),
        .null_threshold = setup.data.number("null_threshold")};
    out.evaluation = [=] { return make_squad_evaluation(eval, options); };
  }
  return out;
}

// ---- synthetic texts

TrainingData open_synthetic(const recipe::Recipe& recipe, const nn::Model& model) {
  TrainingData out;
  const nlohmann::json config = model.config();
  SyntheticText shape;
  shape.size = recipe.integer("data.synthetic_size");
  shape.tokens = recipe.integer("data.max_length");
  shape.vocabulary = config.at("vocab_size").get<int64_t>();
  const auto seed = static_cast<uint64_t>(recipe.integer("seed"));
  switch (model.task()) {
    case nn::Task::classification:
      shape.labels = TextLabels::classes;
      shape.classes = static_cast<int64_t>(config.at("id2label").size());
      out.evaluation = [classes = shape.classes] {
        return make_classification_evaluation(classes);
      };
      break;
    case nn::Task::regression:
      shape.labels = TextLabels::scores;
      out.evaluation = make_regression_evaluation;
      break;
    case nn::Task::span:
      shape.labels = TextLabels::spans;
      out.evaluation = make_span_evaluation;
      break;
  }
  // The two splits differ, as they would in files.
  shape.seed = mix(seed, 0);
  out.train = make_synthetic_text(shape);
  shape.seed = mix(seed, 1);
  out.eval = make_synthetic_text(shape);
  out.longest = shape.tokens;
  return out;
}

}  // namespace

void add_text_options(recipe::Schema& schema) {
  using recipe::Type;
  std::vector<std::string> tasks;
  for (const GlueTask& task : glue_tasks()) {
    tasks.emplace_back(task.name);
  }
  schema
      .add({.key = "task",
            .type = Type::string,
            .fallback = std::string("sst2"),
            .help = "glue: which task",
            .choices = tasks})
      .add({.key = "format",
            .type = Type::string,
            .fallback = std::string("auto"),
            .help = "table: how it is written; auto: by the file's extension",
            .choices = {"auto", "tsv", "csv", "jsonl"}})
      .add({.key = "header",
            .type = Type::boolean,
            .fallback = true,
            .help = "table: the first line names the columns; false: they are called 0, 1, ..."})
      .add({.key = "text_column",
            .type = Type::string,
            .fallback = std::string("text"),
            .help = "table: column of the text"})
      .add({.key = "pair_column",
            .type = Type::string,
            .fallback = std::string(),
            .help = "table: column of a second text; default: none"})
      .add({.key = "label_column",
            .type = Type::string,
            .fallback = std::string("label"),
            .help = "table: column of the label"})
      .add({.key = "labels",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{},
            .help = "table: names of the classes, in order; default: those in the training file"})
      .add({.key = "tokenizer",
            .type = Type::path,
            .fallback = std::string(),
            .help = "folder or file of the tokenizer; default: model.path"})
      .add({.key = "max_length",
            .type = Type::integer,
            .fallback = int64_t{128},
            .help = "tokens of a text at most, special ones included; longer ones are cut",
            .min = 4,
            .max = 1 << 20})
      .add({.key = "padding",
            .type = Type::string,
            .fallback = std::string("longest"),
            .help = "pad a batch to its longest text, or always to max_length (fixed)",
            .choices = {"longest", "fixed"}})
      .add({.key = "stride",
            .type = Type::integer,
            .fallback = int64_t{128},
            .help = "squad: tokens that neighbouring windows of a long context share",
            .min = 0,
            .max = 1 << 20})
      .add({.key = "n_best",
            .type = Type::integer,
            .fallback = int64_t{20},
            .help = "squad: starts and ends tried for an answer",
            .min = 1,
            .max = 1000})
      .add({.key = "max_answer_length",
            .type = Type::integer,
            .fallback = int64_t{30},
            .help = "squad: tokens of an answer at most",
            .min = 1,
            .max = 1 << 20})
      .add({.key = "null_threshold",
            .type = Type::number,
            .fallback = 0.0,
            .help = "squad: no answer where its score is higher than the best answer's by more"});
}

TrainingData open_text_data(const recipe::Recipe& recipe, const nn::Model& model) {
  const std::string kind = recipe.string("data.kind");
  if (kind == "synthetic") {
    return open_synthetic(recipe, model);
  }
  const TextSetup setup = make_setup(recipe, model);
  return kind == "squad" ? open_questions(setup) : open_labelled(setup);
}

}  // namespace lithe
