// The JSON header of a safetensors file, fully checked before a byte of data is looked at.
// Format: https://huggingface.co/docs/safetensors - 8-byte little-endian header length, the header,
// then the data section, which the tensors cover without holes or overlaps.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "tensor/core/shape.h"

namespace lithe {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100 * 1024 * 1024;

struct TensorInfo {
  DType dtype = DType::f32;
  Shape shape;
  int64_t begin = 0;  // bytes from the start of the data section
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorInfo, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;  // "__metadata__"
};

// Throws FileError naming `file`, the tensor, both sizes and what to do.
SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                           std::string_view file);

// Refuses what the JSON library cannot be trusted with: a NUL, which it takes for the end of the
// text, and names, texts and numbers of more than 4 MiB, which cost it nine times their bytes.
void check_json_tokens(std::string_view json, std::string_view file);

// "F32", "BF16", ...; throws UsageError for int4, which the format cannot name.
std::string_view safetensors_dtype(DType dtype);

// A name from a file as it may be printed: at most 120 bytes, control bytes replaced.
std::string printable(std::string_view name);

}  // namespace lithe
