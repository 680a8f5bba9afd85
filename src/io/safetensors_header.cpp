#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
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

// What else the format names, and no type here can hold.
struct ForeignDType {
  std::string_view name;
  std::string_view kind;
  std::string_view convert_to;
};
constexpr std::array<ForeignDType, 11> kForeign{{
    {"F8_E4M3", "an 8-bit float", "BF16"},
    {"F8_E5M2", "an 8-bit float", "BF16"},
    {"F8_E8M0", "an 8-bit scale", "F32"},
    {"F6_E2M3", "a 6-bit float", "BF16"},
    {"F6_E3M2", "a 6-bit float", "BF16"},
    {"F4", "a 4-bit float", "BF16"},
    {"C64", "a complex number", "two F32 tensors, its real and imaginary parts"},
    {"I16", "a 16-bit integer", "I32"},
    {"U16", "an unsigned 16-bit integer", "I32"},
    {"U32", "an unsigned 32-bit integer", "I64"},
    {"U64", "an unsigned 64-bit integer", "I64"},
}};

// Real files describe themselves in a handful; each costs far more memory than its bytes.
constexpr size_t kMostMetadata = 65536;
constexpr size_t kLongestToken = size_t{4} << 20;

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
      if (header_.metadata.size() == kMostMetadata) {
        fail(fmt::format("__metadata__ has more than {} entries", kMostMetadata));
      }
      header_.metadata.emplace(std::move(key_), std::move(value));
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
    for (const ForeignDType& foreign : kForeign) {
      if (foreign.name == value) {
        throw FileError("safetensors",
                        "{}: tensor '{}' has the dtype {}, {}, which is not supported; convert it "
                        "to {}",
                        file_, printable(name_), value, foreign.kind, foreign.convert_to);
      }
    }
    fail(
        fmt::format("tensor '{}' has the dtype '{}', known are F64 F32 BF16 F16 I8 U8 I32 I64 BOOL",
                    printable(name_), printable(value)));
  }

  bool start_object(std::size_t) override {
    if (level_ == Level::kStart) {
      level_ = Level::kRoot;
    } else if (level_ == Level::kRoot && name_ == kMetadataName) {
      level_ = Level::kMetadata;
    } else if (level_ == Level::kRoot) {
      level_ = Level::kTensor;
      info_ = TensorInfo{};
      info_.shape = Shape{};
      offset_count_ = 0;
    } else {
      return unexpected("an object");
    }
    seen_ = 0;
    return true;
  }

  bool key(string_t& value) override {
    if (level_ == Level::kRoot) {
      const bool metadata = value == kMetadataName;
      if (metadata ? has_metadata_ : header_.tensors.contains(value)) {
        fail(fmt::format("tensor '{}' is listed twice", printable(value)));
      }
      has_metadata_ |= metadata;
      name_ = std::move(value);
      return true;
    }
    bool twice = false;
    if (level_ == Level::kMetadata) {
      twice = header_.metadata.contains(value);
    } else {
      const auto field = std::find(kFields.begin(), kFields.end(), value);
      if (field == kFields.end()) {
        fail(fmt::format("tensor '{}' has the unknown key '{}'", printable(name_),
                         printable(value)));
      }
      const unsigned bit = 1u << (field - kFields.begin());
      twice = (seen_ & bit) != 0;
      seen_ |= bit;
    }
    if (twice) {
      fail(fmt::format("'{}' has the key '{}' twice", printable(name_), printable(value)));
    }
    key_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (level_ == Level::kTensor) {
      if (seen_ != kAllFields || offset_count_ != 2) {
        fail(
            fmt::format("tensor '{}' needs dtype, shape and two data_offsets, it has {} of 3 keys "
                        "and {} offsets",
                        printable(name_), std::popcount(seen_), offset_count_));
      }
      header_.tensors.emplace(std::move(name_), info_);
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
  static constexpr std::string_view kMetadataName = "__metadata__";
  static constexpr std::array<std::string_view, 3> kFields{"dtype", "shape", "data_offsets"};
  static constexpr unsigned kAllFields = 7;

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
  bool has_metadata_ = false;
  unsigned seen_ = 0;  // bit i: field i of the tensor being read
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
  check_json_tokens(json, file);
  SafetensorsHeader header;
  HeaderReader reader(file, header);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  check_coverage(header, data_bytes, file);
  return header;
}

void check_json_tokens(std::string_view json, std::string_view file) {
  bool in_text = false;
  size_t begin = 0;  // of the name, text or number
  for (size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (c == '\0') {
      throw FileError("safetensors",
                      "{}: is not valid JSON at byte {}; download or write the file again", file,
                      at + 1);
    }
    if (at - begin > kLongestToken) {
      throw FileError("safetensors",
                      "{}: has a name, text or number of more than {} bytes, at byte {}; "
                      "download or write the file again",
                      file, kLongestToken, begin);
    }
    if (c == '"') {
      in_text = !in_text;
      begin = at + 1;
    } else if (in_text && c == '\\') {
      ++at;
    } else if (!in_text && std::string_view(",:[]{} \t\r\n").find(c) != std::string_view::npos) {
      begin = at + 1;
    }
  }
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
