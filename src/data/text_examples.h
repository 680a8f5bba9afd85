// Labelled texts and pairs of texts: the GLUE tasks as their files are distributed, and any table
// with named columns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/table.h"

namespace lithe {

struct TextExample {
  std::string text;
  std::optional<std::string> pair;
  int64_t label = -1;  // class; -1 where there is none
  double score = 0;    // of a regression task
};

struct TextExamples {
  std::vector<TextExample> examples;
  std::vector<std::string> label_names;  // by class; empty for regression
  bool regression = false;
  bool labelled = true;
  int64_t skipped = 0;  // malformed rows that the task's rule drops
};

struct TableExampleOptions {
  TableOptions table;
  std::string text_column = "sentence";
  std::string pair_column;               // empty: single texts
  std::string label_column = "label";    // empty: no labels
  std::vector<std::string> label_names;  // by class, as for an earlier split; see below
  bool regression = false;               // labels are finite numbers
};

// Without label_names the classes are the column's distinct values in order (by number where all
// are integers, else by bytes). With them a cell is one of the names, or, where no name is itself
// an integer, a class number. Throws FileError, naming line and value, for labels outside that, and
// what read_table() throws.
TextExamples read_table_examples(const std::filesystem::path& path,
                                 const TableExampleOptions& options);
// The same of a table in memory.
TextExamples table_examples(const Table& table, const TableExampleOptions& options);

struct GlueTask {
  std::string_view name;    // "sst2"
  std::string_view folder;  // "SST-2"
  std::string_view text_column;
  std::string_view pair_column;               // empty: single texts
  std::string_view label_column;              // of train and dev; test has none
  std::vector<std::string_view> label_names;  // by class; empty: regression
  std::vector<std::string_view> metrics;      // the benchmark's, of data/metrics.h
  // CoLA's train and dev have no header line; these are their columns then.
  std::vector<std::string_view> headerless_columns = {};
  std::string_view dev_file = "dev.tsv";
  std::string_view test_file = "test.tsv";
  bool skip_malformed = false;
};

// cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb. Class numbers are those of the benchmark: mnli
// entailment 0, neutral 1, contradiction 2; qnli and rte entailment 0, not_entailment 1.
std::span<const GlueTask> glue_tasks();
// By name or folder name, in any case. Throws UsageError with the known names.
const GlueTask& glue_task(std::string_view name);

// `folder` holds the task's files, or the task's folder. `split` is "train", "dev" or "test" (no
// labels); for mnli dev and test are the matched ones, and "dev_mismatched", "test_mismatched" the
// others. QQP's published files have a few rows with missing columns: they are dropped and counted
// (elsewhere such a row is an error). Throws FileError and UsageError.
TextExamples read_glue(const std::filesystem::path& folder, std::string_view task,
                       std::string_view split);

}  // namespace lithe
