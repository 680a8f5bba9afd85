// Rows of named text columns out of a TSV, CSV or JSON-lines file.
//
//   tsv    tab-separated, no quoting at all: a quote is a quote (as the GLUE files are written)
//   csv    RFC 4180: a field in quotes may hold commas, newlines and doubled quotes
//   jsonl  one JSON object a line; the first line's keys are the columns, a later line needs them
//          all and may have more, which are ignored; numbers and booleans read as their text, null
//          as an empty text
//
// In all three: UTF-8 with or without byte-order mark, lines end in LF or CRLF, the last one may
// lack it, empty lines are skipped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lithe {

enum class TableFormat : uint8_t { automatic, tsv, csv, jsonl };  // automatic: by extension

struct TableOptions {
  TableFormat format = TableFormat::automatic;
  bool header = true;           // first line names the columns; else they are "0", "1", ...
  bool skip_malformed = false;  // drop, and count, rows with too few or too many columns
  int64_t max_field_bytes = int64_t{1} << 20;
};

// Holds the text once, and 8 bytes a row.
class Table {
 public:
  int64_t rows() const { return static_cast<int64_t>(begins_.size()); }
  const std::vector<std::string>& columns() const { return columns_; }
  // Rows dropped by skip_malformed.
  int64_t skipped() const { return skipped_; }
  // What the file is called in messages, and the line that a row begins at.
  const std::string& where() const { return where_; }
  int64_t line(int64_t row) const { return lines_[static_cast<size_t>(row)]; }

  // Position of a column. Throws FileError where there is none or more than one of that name, or it
  // holds arrays or objects (JSON).
  int64_t column(std::string_view name) const;
  // Valid as long as the table is.
  std::string_view cell(int64_t row, int64_t column) const;

 private:
  friend class TableParser;

  std::string where_;
  std::string text_;  // fields one after another, each ended by NUL, which no field holds
  std::vector<std::string> columns_;
  std::vector<int64_t> nested_lines_;  // by column: a line where it is no plain value, or 0
  std::vector<uint32_t> begins_;       // by row: where its first field begins
  std::vector<uint32_t> lines_;
  int64_t skipped_ = 0;
};

// `where` names the text in messages; the format must not be automatic. Throws FileError, with the
// line, for: no rows, a row with another number of columns, NUL bytes, bytes that are not UTF-8,
// fields above max_field_bytes, more than 1,024 columns, quotes that do not close, bad JSON.
Table parse_table(std::string text, const TableOptions& options, std::string_view where);

// Also throws FileError for files that cannot be read and extensions that name no format.
Table read_table(const std::filesystem::path& path, const TableOptions& options = {});

// The first `most` of the names, in quotes, for a message.
std::string quoted_list(std::span<const std::string> names, size_t most);

// "tsv", "csv", "jsonl" or "auto"; throws UsageError.
TableFormat parse_table_format(std::string_view name);

}  // namespace lithe
