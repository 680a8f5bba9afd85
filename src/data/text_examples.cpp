#include "data/text_examples.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "data/unicode_text.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxClasses = 4096;

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string_view::npos
             ? std::string_view()
             : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::vector<std::string> collect_names(const Table& table, int64_t column) {
  std::map<std::string, std::optional<int64_t>, std::less<>> values;
  bool integers = true;
  for (int64_t row = 0; row < table.rows(); ++row) {
    const std::string_view cell = trim(table.cell(row, column));
    if (values.find(cell) != values.end()) {
      continue;
    }
    if (cell.empty()) {
      throw FileError("labels", "{}:{}: the label is empty; fill it in or remove the row",
                      table.where(), table.line(row));
    }
    if (values.size() == kMaxClasses) {
      throw FileError("labels",
                      "{}: column {} has more than {} different values, such as {}; name "
                      "the column of the labels, or set regression for numbers",
                      table.where(), in_quotes(table.columns()[static_cast<size_t>(column)]),
                      kMaxClasses, in_quotes(cell));
    }
    const auto number = parse_number<int64_t>(cell);
    integers = integers && number.has_value();
    values.emplace(cell, number);
  }
  std::vector<std::string> names;
  names.reserve(values.size());
  for (const auto& [name, number] : values) {
    names.push_back(name);
  }
  if (integers) {
    std::stable_sort(names.begin(), names.end(), [&](const auto& a, const auto& b) {
      return values.find(a)->second < values.find(b)->second;
    });
  }
  return names;
}

class LabelReader {
 public:
  explicit LabelReader(const std::vector<std::string>& names) : names_(names) {
    for (size_t i = 0; i < names.size(); ++i) {
      if (!by_name_.emplace(names[i], static_cast<int64_t>(i)).second) {
        throw UsageError("labels", "label name {} is given twice; remove one", in_quotes(names[i]));
      }
      numbers_ = numbers_ && !parse_number<int64_t>(names[i]);
    }
  }

  int64_t read(const Table& table, int64_t row, int64_t column) const {
    const std::string_view cell = trim(table.cell(row, column));
    if (const auto found = by_name_.find(cell); found != by_name_.end()) {
      return found->second;
    }
    const auto number = parse_number<int64_t>(cell);
    if (numbers_ && number && *number >= 0 && *number < static_cast<int64_t>(names_.size())) {
      return *number;
    }
    throw FileError("labels", "{}:{}: label {}; wanted one of: {}", table.where(), table.line(row),
                    in_quotes(cell), quoted_list(names_, 10));
  }

 private:
  const std::vector<std::string>& names_;
  std::map<std::string_view, int64_t> by_name_;
  bool numbers_ = true;
};

double read_score(const Table& table, int64_t row, int64_t column) {
  const std::string_view cell = trim(table.cell(row, column));
  const auto value = parse_number<double>(cell);
  if (!value || !std::isfinite(*value)) {
    throw FileError("labels", "{}:{}: {} is no finite number; a regression task needs one",
                    table.where(), table.line(row), in_quotes(cell));
  }
  return *value;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 'a' - 'A') : c;
  }
  return out;
}

const std::vector<GlueTask>& tasks() {
  static const std::vector<GlueTask> kTasks = [] {
    std::vector<GlueTask> out = {
        {"cola", "CoLA", "sentence", "", "label", {"unacceptable", "acceptable"}, {"matthews"}},
        {"mnli",
         "MNLI",
         "sentence1",
         "sentence2",
         "gold_label",
         {"entailment", "neutral", "contradiction"},
         {"accuracy"}},
        {"mrpc",
         "MRPC",
         "#1 String",
         "#2 String",
         "Quality",
         {"not_equivalent", "equivalent"},
         {"accuracy", "f1"}},
        {"qnli",
         "QNLI",
         "question",
         "sentence",
         "label",
         {"entailment", "not_entailment"},
         {"accuracy"}},
        {"qqp",
         "QQP",
         "question1",
         "question2",
         "is_duplicate",
         {"not_duplicate", "duplicate"},
         {"accuracy", "f1"}},
        {"rte",
         "RTE",
         "sentence1",
         "sentence2",
         "label",
         {"entailment", "not_entailment"},
         {"accuracy"}},
        {"sst2", "SST-2", "sentence", "", "label", {"negative", "positive"}, {"accuracy"}},
        {"stsb", "STS-B", "sentence1", "sentence2", "score", {}, {"pearson", "spearman"}},
    };
    out[0].headerless_columns = {"source", "label", "star", "sentence"};
    out[1].dev_file = "dev_matched.tsv";
    out[1].test_file = "test_matched.tsv";
    out[4].skip_malformed = true;
    return out;
  }();
  return kTasks;
}

// Position of a column of a file without header, as the table names it.
std::string headerless(const GlueTask& task, std::string_view column) {
  const auto& columns = task.headerless_columns;
  return std::to_string(std::find(columns.begin(), columns.end(), column) - columns.begin());
}

}  // namespace

TextExamples table_examples(const Table& table, const TableExampleOptions& options) {
  TextExamples out;
  out.regression = options.regression;
  out.labelled = !options.label_column.empty();
  out.skipped = table.skipped();
  const int64_t text = table.column(options.text_column);
  const int64_t pair = options.pair_column.empty() ? -1 : table.column(options.pair_column);
  const int64_t label = out.labelled ? table.column(options.label_column) : 0;
  if (!options.regression) {
    out.label_names = options.label_names.empty() && out.labelled ? collect_names(table, label)
                                                                  : options.label_names;
  }
  const LabelReader labels(out.label_names);
  out.examples.reserve(static_cast<size_t>(table.rows()));
  for (int64_t row = 0; row < table.rows(); ++row) {
    TextExample& example = out.examples.emplace_back();
    example.text = table.cell(row, text);
    if (pair >= 0) {
      example.pair = table.cell(row, pair);
    }
    if (out.labelled && options.regression) {
      example.score = read_score(table, row, label);
    } else if (out.labelled) {
      example.label = labels.read(table, row, label);
    }
  }
  return out;
}

TextExamples read_table_examples(const fs::path& path, const TableExampleOptions& options) {
  return table_examples(read_table(path, options.table), options);
}

std::span<const GlueTask> glue_tasks() { return tasks(); }

const GlueTask& glue_task(std::string_view name) {
  const std::string wanted = lower(name);
  std::vector<std::string_view> names;
  for (const GlueTask& task : tasks()) {
    if (wanted == task.name || wanted == lower(task.folder)) {
      return task;
    }
    names.push_back(task.name);
  }
  throw UsageError("glue", "no task {}; known tasks are: {}", in_quotes(name),
                   fmt::join(names, ", "));
}

TextExamples read_glue(const fs::path& folder, std::string_view name, std::string_view split) {
  const GlueTask& task = glue_task(name);
  const bool mnli = task.name == "mnli";
  std::string file;
  if (split == "train") {
    file = "train.tsv";
  } else if (split == "dev") {
    file = task.dev_file;
  } else if (split == "test") {
    file = task.test_file;
  } else if (mnli && (split == "dev_mismatched" || split == "test_mismatched")) {
    file = fmt::format("{}.tsv", split);
  } else {
    throw UsageError("glue", "split {} of {}; wanted train, dev{} test{}", in_quotes(split),
                     task.name, mnli ? ", dev_mismatched," : " or",
                     mnli ? " or test_mismatched" : "");
  }
  const bool test = split.starts_with("test");
  TableExampleOptions options;
  options.table.format = TableFormat::tsv;
  options.table.header = test || task.headerless_columns.empty();
  options.table.skip_malformed = task.skip_malformed;
  options.regression = task.label_names.empty();
  options.label_names.assign(task.label_names.begin(), task.label_names.end());
  const auto column = [&](std::string_view wanted) {
    return options.table.header ? std::string(wanted) : headerless(task, wanted);
  };
  options.text_column = column(task.text_column);
  options.pair_column = task.pair_column;
  options.label_column = test ? "" : column(task.label_column);

  fs::path path = folder / file;
  if (!fs::exists(path) && fs::exists(folder / task.folder / file)) {
    path = folder / task.folder / file;
  }
  if (!fs::exists(path)) {
    throw FileError("glue",
                    "{}: no such file, nor {}/{} in that folder; name the folder of {}'s "
                    "files",
                    path.string(), task.folder, file, task.folder);
  }
  return read_table_examples(path, options);
}

}  // namespace lithe
