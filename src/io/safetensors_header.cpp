#include "io/safetensors_header.h"

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "tensor/core/checked.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

constexpr std::array<std::pair<std::string_view, DType>, 9> kDTypes{{
    {"F64", DType::f64},
    {"F32", DType::f32},
    {"BF16", DType::bf16},
    {"F16", DType::f16},
    {"I8", DType::i8},
    {"U8", DType::u8},
    {"I32", DType::i32},
    {"I64", DType::i64},
    {"BOOL", DType::boolean},
}};

// Accepts exactly the format's grammar, which bounds the depth at three; nothing else is stored.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::string_view file, SafetensorsHeader& header) : file_(file), header_(header) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return unexpected(fmt::format("the negative number {}", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected(fmt::format("the number {}", printable(text)));
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (level_ != Level::kShape && level_ != Level::kOffsets) {
      return unexpected(fmt::format("the number {}", value));
    }
    if (value > static_cast<uint64_t>(INT64_MAX)) {
      fail(fmt::format("tensor '{}' has the number {}, above 2^63", printable(name_), value));
    }
    if (level_ == Level::kShape) {
      if (info_.shape.rank() == Shape::kMaxRank) {
        fail(fmt::format("tensor '{}' has more than {} dimensions", printable(name_),
                         Shape::kMaxRank));
      }
      info_.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (offset_count_ == 2) {
        fail(fmt::format("tensor '{}' has more than two data_offsets", printable(name_)));
      }
      (offset_count_++ == 0 ? info_.begin : info_.end) = static_cast<int64_t>(value);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (level_ == Level::kMetadata) {
      header_.metadata[key_] = std::move(value);
      return true;
    }
    if (level_ != Level::kTensor || key_ != "dtype") {
      return unexpected("a string");
    }
    for (const auto& [text, dtype] : kDTypes) {
      if (text == value) {
        info_.dtype = dtype;
        return true;
      }
    }
    fail(
        fmt::format("tensor '{}' has the dtype '{}', known are F64 F32 BF16 F16 I8 U8 I32 I64 BOOL",
                    printable(name_), printable(value)));
  }

  bool start_object(std::size_t) override {
    if (level_ == Level::kStart) {
      level_ = Level::kRoot;
    } else if (level_ == Level::kRoot && name_ == "__metadata__") {
      level_ = Level::kMetadata;
    } else if (level_ == Level::kRoot) {
      level_ = Level::kTensor;
      info_ = TensorInfo{};
      info_.shape = Shape{};
      offset_count_ = 0;
    } else {
      return unexpected("an object");
    }
    keys_.clear();
    return true;
  }

  bool key(string_t& value) override {
    if (level_ == Level::kRoot) {
      if (!names_.insert(value).second) {
        fail(fmt::format("tensor '{}' is listed twice", printable(value)));
      }
      name_ = std::move(value);
      return true;
    }
    if (level_ == Level::kTensor && value != "dtype" && value != "shape" &&
        value != "data_offsets") {
      fail(fmt::format("tensor '{}' has the unknown key '{}'", printable(name_), printable(value)));
    }
    if (!keys_.insert(value).second) {
      fail(fmt::format("'{}' has the key '{}' twice", printable(name_), printable(value)));
    }
    key_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (level_ == Level::kTensor) {
      if (keys_.size() != 3 || offset_count_ != 2) {
        fail(
            fmt::format("tensor '{}' needs dtype, shape and two data_offsets, it has {} of 3 keys "
                        "and {} offsets",
                        printable(name_), keys_.size(), offset_count_));
      }
      header_.tensors.emplace(name_, info_);
    }
    level_ = level_ == Level::kRoot ? Level::kDone : Level::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (level_ == Level::kTensor && key_ == "shape") {
      level_ = Level::kShape;
    } else if (level_ == Level::kTensor && key_ == "data_offsets") {
      level_ = Level::kOffsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }
  bool end_array() override {
    level_ = Level::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    fail(fmt::format("header is not valid JSON at byte {}", position));
  }

 private:
  enum class Level { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets, kDone };

  [[noreturn]] void fail(const std::string& what) const {
    throw FileError("safetensors", "{}: {}; download or write the file again", file_, what);
  }
  bool unexpected(std::string_view what) const {
    fail(fmt::format("header has {} where the format allows none, at '{}'", what,
                     printable(name_.empty() ? "the start" : name_)));
  }

  std::string_view file_;
  SafetensorsHeader& header_;
  Level level_ = Level::kStart;
  std::set<std::string, std::less<>> names_;  // of the root object, "__metadata__" included
  std::set<std::string, std::less<>> keys_;   // of the object being read
  std::string name_;
  std::string key_;
  TensorInfo info_;
  int offset_count_ = 0;
};

int64_t size_of(const TensorInfo& info, std::string_view name, std::string_view file) {
  try {
    return byte_size(info.dtype, info.shape);
  } catch (const ShapeError&) {
    throw FileError("safetensors",
                    "{}: tensor '{}' of shape {} needs more than 2^63 bytes, its offsets give {}; "
                    "download or write the file again",
                    file, printable(name), info.shape, info.end - info.begin);
  }
}

void check_coverage(const SafetensorsHeader& header, int64_t data_bytes, std::string_view file) {
  std::vector<std::pair<std::string_view, const TensorInfo*>> order;
  order.reserve(header.tensors.size());
  for (const auto& [name, info] : header.tensors) {
    if (info.begin > info.end || info.end > data_bytes) {
      throw FileError("safetensors",
                      "{}: tensor '{}' has the offsets {}..{}, the data section has {} bytes; the "
                      "file is truncated or damaged, download or write it again",
                      file, printable(name), info.begin, info.end, data_bytes);
    }
    const int64_t wanted = size_of(info, name, file);
    if (wanted != info.end - info.begin) {
      throw FileError("safetensors",
                      "{}: tensor '{}' ({} {}) needs {} bytes, its offsets give {}; download or "
                      "write the file again",
                      file, printable(name), dtype_name(info.dtype), info.shape, wanted,
                      info.end - info.begin);
    }
    order.emplace_back(name, &info);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  int64_t covered = 0;
  for (const auto& [name, info] : order) {
    if (info->begin != covered) {
      throw FileError("safetensors",
                      "{}: tensor '{}' begins at {}, the one before ends at {}: {}; download or "
                      "write the file again",
                      file, printable(name), info->begin, covered,
                      info->begin < covered ? "they overlap" : "there is a hole");
    }
    covered = info->end;
  }
  if (covered != data_bytes) {
    throw FileError("safetensors",
                    "{}: the tensors cover {} bytes, the data section has {}; download or write "
                    "the file again",
                    file, covered, data_bytes);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                           std::string_view file) {
  SafetensorsHeader header;
  HeaderReader reader(file, header);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  check_coverage(header, data_bytes, file);
  return header;
}

std::string_view safetensors_dtype(DType dtype) {
  for (const auto& [text, known] : kDTypes) {
    if (known == dtype) {
      return text;
    }
  }
  throw UsageError("safetensors", "dtype {} has no name in the format; store it packed as uint8",
                   dtype_name(dtype));
}

std::string printable(std::string_view name) {
  constexpr size_t kMaxBytes = 120;
  std::string out(name.substr(0, kMaxBytes));
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      c = '?';
    }
  }
  return name.size() > kMaxBytes ? out + "..." : out;
}

}  // namespace lithe
