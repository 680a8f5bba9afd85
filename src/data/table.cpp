#include "data/table.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "data/json_events.h"
#include "data/unicode_text.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxColumns = 1024;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

int64_t line_of(std::string_view text, size_t position) {
  return 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(position), '\n');
}

void check_utf8(std::string_view text, std::string_view where) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    throw FileError("table", "{}: is UTF-16; save it as UTF-8", where);
  }
  if (const size_t at = text.find('\0'); at != std::string_view::npos) {
    throw FileError("table", "{}:{}: holds a NUL byte, so it is no text file; check the path",
                    where, line_of(text, at));
  }
  if (const size_t at = find_ill_formed(text); at != std::string_view::npos) {
    throw FileError("table",
                    "{}:{}: byte 0x{:02x} is not UTF-8; convert the file, for example with iconv "
                    "-f latin1 -t utf8",
                    where, line_of(text, at), static_cast<uint8_t>(text[at]));
  }
}

// A cell of one JSON line, or nothing where the key is missing.
using Cells = std::vector<std::optional<std::string>>;

}  // namespace

// Rewrites the text in place to fields that end in NUL. A field and its end take no more bytes than
// they had with separators and quotes, so writing never overtakes reading.
class TableParser {
 public:
  TableParser(std::string text, const TableOptions& options, std::string_view where)
      : options_(options) {
    table_.where_ = where;
    if (text.size() >= std::numeric_limits<uint32_t>::max()) {
      throw FileError("table", "{}: {} bytes, at most 4 GiB are read; split the file", where,
                      text.size());
    }
    if (text.starts_with(kByteOrderMark)) {
      read_ = kByteOrderMark.size();
    }
    check_utf8(text, where);
    table_.text_ = std::move(text);
    // A row has two bytes at least; the bound keeps a file of empty lines from reserving more.
    const auto& bytes = table_.text_;
    const size_t lines = static_cast<size_t>(line_of(bytes, bytes.size()));
    table_.begins_.reserve(std::min(lines, bytes.size() / 2 + 1));
    table_.lines_.reserve(std::min(lines, bytes.size() / 2 + 1));
  }

  Table parse() {
    switch (options_.format) {
      case TableFormat::tsv:
        read_tsv();
        break;
      case TableFormat::csv:
        read_csv();
        break;
      case TableFormat::jsonl:
        read_jsonl();
        break;
      case TableFormat::automatic:
        throw UsageError("table", "{}: format is not set; name tsv, csv or jsonl", table_.where_);
    }
    if (table_.begins_.empty()) {
      throw FileError("table", "{}: {}; check the path", table_.where_,
                      table_.columns_.empty() ? "is empty"
                      : table_.skipped_ > 0   ? "no row has as many columns as the header"
                                              : "has a header and no rows");
    }
    return std::move(table_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    throw FileError("table", "{}:{}: {}", table_.where_, line_,
                    fmt::format(text, std::forward<Args>(args)...));
  }

  void put(const char* bytes, size_t count) {
    std::memmove(table_.text_.data() + write_, bytes, count);
    write_ += count;
  }
  void begin_row() {
    row_begin_ = field_begin_ = write_;
    row_line_ = line_;
    fields_ = 0;
  }
  void check_field_size(size_t bytes) const {
    if (static_cast<int64_t>(bytes) > options_.max_field_bytes) {
      refuse("column {} has more than {} bytes; {}", fields_ + 1, options_.max_field_bytes,
             options_.format == TableFormat::csv ? "look for a quote that is not closed"
                                                 : "check the file's format");
    }
  }
  void end_field() {
    check_field_size(write_ - field_begin_);
    table_.text_.data()[write_++] = '\0';  // at most the string's own end
    field_begin_ = write_;
    if (++fields_ > kMaxColumns) {
      refuse("more than {} columns; check the file's format", kMaxColumns);
    }
  }
  void end_row() {
    if (table_.columns_.empty()) {
      const char* at = table_.text_.data() + row_begin_;
      for (size_t i = 0; i < fields_; ++i) {
        const std::string_view name(at);
        table_.columns_.push_back(options_.header ? std::string(name) : std::to_string(i));
        at += name.size() + 1;
      }
      table_.nested_lines_.assign(fields_, 0);
      if (options_.header) {
        return;
      }
    }
    if (fields_ != table_.columns_.size()) {
      if (options_.skip_malformed) {
        ++table_.skipped_;
        write_ = row_begin_;
        return;
      }
      line_ = row_line_;
      refuse("{} columns, the {} has {}; {}", fields_, options_.header ? "header" : "first line",
             table_.columns_.size(),
             options_.format == TableFormat::csv ? "put fields that hold a comma into quotes"
                                                 : "a field must not hold a tab or a newline");
    }
    table_.begins_.push_back(static_cast<uint32_t>(row_begin_));
    table_.lines_.push_back(static_cast<uint32_t>(row_line_));
  }

  // The next line without its end, or nothing at the end of the text. Empty lines are passed over.
  std::optional<std::string_view> next_line() {
    while (read_ < table_.text_.size()) {
      ++line_;
      const std::string_view rest = std::string_view(table_.text_).substr(read_);
      const size_t newline = rest.find('\n');
      std::string_view line = rest.substr(0, newline);
      read_ += newline == std::string_view::npos ? rest.size() : newline + 1;
      if (line.ends_with('\r')) {
        line.remove_suffix(1);
      }
      if (!line.empty()) {
        return line;
      }
    }
    return std::nullopt;
  }

  void read_tsv() {
    while (const auto line = next_line()) {
      begin_row();
      for (size_t at = 0; at <= line->size();) {
        const size_t end = std::min(line->find('\t', at), line->size());
        put(line->data() + at, end - at);
        end_field();
        at = end + 1;
      }
      end_row();
    }
  }

  void read_csv() {
    const std::string& text = table_.text_;
    line_ = 1;
    while (read_ < text.size()) {
      if (text[read_] == '\n' || at_crlf()) {
        read_ += text[read_] == '\n' ? 1 : 2;
        ++line_;
        continue;
      }
      begin_row();
      bool more = true;
      while (more) {
        if (read_ < text.size() && text[read_] == '"') {
          read_quoted();
        } else {
          const size_t begin = read_;
          while (read_ < text.size() && text[read_] != ',' && text[read_] != '\n' && !at_crlf()) {
            ++read_;
          }
          put(text.data() + begin, read_ - begin);
        }
        // Before end_field(), which may write over the separator.
        more = read_ < text.size() && text[read_] == ',';
        const size_t separator = read_ >= text.size() ? 0 : at_crlf() ? 2 : 1;
        end_field();
        read_ += separator;
      }
      end_row();
      ++line_;
    }
  }
  bool at_crlf() const {
    return table_.text_[read_] == '\r' &&
           (read_ + 1 == table_.text_.size() || table_.text_[read_ + 1] == '\n');
  }
  void read_quoted() {
    const std::string& text = table_.text_;
    const int64_t opened = line_;
    ++read_;
    for (;;) {
      const size_t quote = text.find('"', read_);
      const size_t end = std::min(quote, text.size());
      line_ += std::count(text.begin() + static_cast<ptrdiff_t>(read_),
                          text.begin() + static_cast<ptrdiff_t>(end), '\n');
      const int64_t last = std::exchange(line_, opened);
      if (quote == std::string::npos) {
        refuse(
            "column {} opens a quote that never closes; close it, or double quotes inside a "
            "field",
            fields_ + 1);
      }
      check_field_size(write_ - field_begin_ + end - read_);
      line_ = last;
      put(text.data() + read_, end - read_);
      read_ = end + 1;
      if (read_ < text.size() && text[read_] == '"') {
        put("\"", 1);
        ++read_;
        continue;
      }
      if (read_ < text.size() && text[read_] != ',' && text[read_] != '\n' && !at_crlf()) {
        refuse("column {} goes on after its closing quote; double the quotes inside a field",
               fields_ + 1);
      }
      return;
    }
  }

  // Puts one line's values to their columns; the first line's keys make them.
  class Object final : public JsonEvents {
   public:
    Object(TableParser& parser, bool first) : parser_(parser), first_(first) {
      cells_.resize(parser_.table_.columns_.size());
    }
    Cells& cells() { return cells_; }

    void begin_object() override { open(); }
    void begin_array() override {
      if (depth_ == 0) {
        parser_.refuse("is an array; wanted one JSON object a line, not one array of them");
      }
      open();
    }
    void end_object() override { --depth_; }
    void end_array() override { --depth_; }
    void key(std::string& name) override {
      if (depth_ != 1) {
        return;
      }
      auto& columns = parser_.table_.columns_;
      column_ = nullptr;
      auto found = parser_.by_name_.find(name);
      if (found == parser_.by_name_.end()) {
        if (!first_) {
          return;
        }
        if (columns.size() == kMaxColumns) {
          parser_.refuse("more than {} columns; check the file's format", kMaxColumns);
        }
        found = parser_.by_name_.emplace(name, columns.size()).first;
        columns.push_back(std::move(name));
        parser_.table_.nested_lines_.push_back(0);
        cells_.emplace_back();
      }
      column_ = &cells_[found->second];
      index_ = found->second;
      if (column_->has_value()) {
        parser_.refuse("key {} appears twice; remove one", in_quotes(columns[index_]));
      }
      column_->emplace();
    }
    void string(std::string& value) override {
      if (value.find('\0') != std::string::npos) {
        parser_.refuse("holds the character \\u0000; remove it");
      }
      set(value);
    }
    void number(std::string_view digits, std::optional<int64_t>) override { set(digits); }
    void boolean(bool value) override { set(value ? "true" : "false"); }
    void null() override { set(""); }

   private:
    void open() {
      if (depth_++ == 1 && column_ != nullptr) {
        parser_.table_.nested_lines_[index_] = parser_.line_;
      }
    }
    void set(std::string_view value) {
      if (depth_ == 0) {
        parser_.refuse("is no JSON object; wanted one object a line");
      }
      if (depth_ == 1 && column_ != nullptr) {
        column_->emplace(value);
      }
    }

    TableParser& parser_;
    bool first_;
    int depth_ = 0;
    size_t index_ = 0;
    std::optional<std::string>* column_ = nullptr;
    Cells cells_;
  };

  void read_jsonl() {
    while (const auto line = next_line()) {
      begin_row();
      Object object(*this, table_.columns_.empty());
      if (const auto problem = read_json(*line, object)) {
        refuse("is no JSON: {} (column {}); write one object a line", problem->what,
               problem->column);
      }
      if (table_.columns_.empty()) {
        refuse("is an object without keys; give it the columns");
      }
      for (size_t i = 0; i < table_.columns_.size(); ++i) {
        const auto& cell = object.cells()[i];
        if (!cell) {
          refuse("lacks key {} of the first line; give every line the same keys",
                 in_quotes(table_.columns_[i]));
        }
        put(cell->data(), cell->size());
        end_field();
      }
      end_row();
    }
  }

  TableOptions options_;
  Table table_;
  size_t read_ = 0;
  size_t write_ = 0;
  size_t row_begin_ = 0;
  size_t field_begin_ = 0;
  size_t fields_ = 0;
  int64_t line_ = 0;
  int64_t row_line_ = 0;
  std::map<std::string, size_t, std::less<>> by_name_;  // of JSON keys
};

int64_t Table::column(std::string_view name) const {
  const auto found = std::find(columns_.begin(), columns_.end(), name);
  if (found == columns_.end()) {
    throw FileError("table", "{}: no column {}; known columns are: {}", where_, in_quotes(name),
                    quoted_list(columns_, 20));
  }
  if (std::find(found + 1, columns_.end(), name) != columns_.end()) {
    throw FileError("table", "{}: more than one column {}; rename all but one", where_,
                    in_quotes(name));
  }
  const auto index = found - columns_.begin();
  if (const int64_t at = nested_lines_[static_cast<size_t>(index)]; at > 0) {
    throw FileError("table", "{}:{}: {} is an array or object; wanted text, a number or a boolean",
                    where_, at, in_quotes(name));
  }
  return index;
}

std::string_view Table::cell(int64_t row, int64_t column) const {
  std::string_view out(text_.data() + begins_[static_cast<size_t>(row)]);
  for (; column > 0; --column) {
    out = std::string_view(out.data() + out.size() + 1);
  }
  return out;
}

Table parse_table(std::string text, const TableOptions& options, std::string_view where) {
  return TableParser(std::move(text), options, where).parse();
}

Table read_table(const fs::path& path, const TableOptions& options) {
  TableOptions known = options;
  if (known.format == TableFormat::automatic) {
    const std::string extension = path.extension().string();
    if (extension == ".tsv" || extension == ".tab" || extension == ".txt") {
      known.format = TableFormat::tsv;
    } else if (extension == ".csv") {
      known.format = TableFormat::csv;
    } else if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") {
      known.format = TableFormat::jsonl;
    } else {
      throw FileError("table",
                      "{}: extension {} names no format; set the format to tsv, csv or "
                      "jsonl",
                      path.string(), in_quotes(extension));
    }
  }
  return parse_table(read_whole_file(path), known, path.string());
}

std::string quoted_list(std::span<const std::string> names, size_t most) {
  std::string out;
  for (const std::string& name : names.first(std::min(most, names.size()))) {
    out += (out.empty() ? "" : ", ") + in_quotes(name);
  }
  return names.size() > most ? out + ", ..." : out;
}

TableFormat parse_table_format(std::string_view name) {
  constexpr std::pair<std::string_view, TableFormat> kNames[] = {{"auto", TableFormat::automatic},
                                                                 {"tsv", TableFormat::tsv},
                                                                 {"csv", TableFormat::csv},
                                                                 {"jsonl", TableFormat::jsonl}};
  for (const auto& [known, format] : kNames) {
    if (known == name) {
      return format;
    }
  }
  throw UsageError("table", "format {}; wanted auto, tsv, csv or jsonl", in_quotes(name));
}

}  // namespace lithe
