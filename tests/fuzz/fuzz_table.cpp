// Any bytes as TSV, CSV or JSON lines: they read, or a FileError says why not.
#include <cstddef>
#include <cstdint>
#include <string>

#include "data/text_examples.h"
#include "tensor/core/error.h"

// The first byte chooses format and options, the rest is the file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  lithe::TableExampleOptions options;
  options.table.format = static_cast<lithe::TableFormat>(1 + data[0] % 3);
  options.table.header = (data[0] & 4) == 0;
  options.table.skip_malformed = (data[0] & 8) != 0;
  options.table.max_field_bytes = (data[0] & 16) != 0 ? 8 : 1 << 20;
  options.regression = (data[0] & 32) != 0;
  options.text_column = options.table.header ? "sentence" : "0";
  options.label_column = options.table.header ? "label" : "1";
  try {
    const lithe::Table table = lithe::parse_table(
        std::string(reinterpret_cast<const char*>(data) + 1, size - 1), options.table, "fuzz");
    size_t bytes = 0;
    for (int64_t row = 0; row < table.rows(); ++row) {
      for (size_t column = 0; column < table.columns().size(); ++column) {
        bytes += table.cell(row, static_cast<int64_t>(column)).size();
      }
      if (table.line(row) < 1 || table.line(row) > static_cast<int64_t>(size)) {
        __builtin_trap();
      }
    }
    if (bytes > size || table.rows() == 0) {
      __builtin_trap();
    }
    lithe::table_examples(table, options);
  } catch (const lithe::FileError&) {
  }
  return 0;
}
