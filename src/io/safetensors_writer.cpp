#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "tensor/core/checked.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

// Wide elements first, so that every tensor starts at a multiple of its element size.
std::vector<const TensorSpec*> aligned_order(std::span<const TensorSpec> tensors) {
  std::vector<const TensorSpec*> order;
  order.reserve(tensors.size());
  for (const TensorSpec& tensor : tensors) {
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const TensorSpec* a, const TensorSpec* b) {
    const int bits_a = dtype_bits(a->dtype), bits_b = dtype_bits(b->dtype);
    return bits_a != bits_b ? bits_a > bits_b : a->name < b->name;
  });
  return order;
}

std::string dump(const nlohmann::ordered_json& json, const std::string& path) {
  try {
    return json.dump();
  } catch (const nlohmann::json::exception&) {
    throw UsageError("safetensors", "{}: a tensor name or metadata text is not UTF-8; rename it",
                     path);
  }
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::span<const TensorSpec> tensors, const Metadata& metadata)
    : path_(path.string()), file_(path) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    auto& entry = json["__metadata__"] = nlohmann::ordered_json::object();
    for (const auto& [key, value] : metadata) {
      entry.push_back({key, value});
    }
  }
  int64_t offset = 0;
  // ordered_json looks keys up linearly: the text is built entry by entry, names checked by slots_.
  std::string header = dump(json, path_);
  header.pop_back();
  for (const TensorSpec* tensor : aligned_order(tensors)) {
    const int64_t bytes = byte_size(tensor->dtype, tensor->shape);
    const int64_t end = checked_add(offset, bytes);
    if (tensor->name == "__metadata__" ||
        !slots_.emplace(tensor->name, Slot{offset, bytes, false}).second) {
      throw UsageError("safetensors", "{}: tensor name '{}' is reserved or used twice; rename it",
                       path_, tensor->name);
    }
    const std::vector<int64_t> dims(tensor->shape.begin(), tensor->shape.end());
    const nlohmann::ordered_json info = {{"dtype", safetensors_dtype(tensor->dtype)},
                                         {"shape", dims},
                                         {"data_offsets", {offset, end}}};
    header += fmt::format("{}{}:{}", header.size() > 1 ? "," : "", dump(tensor->name, path_),
                          dump(info, path_));
    offset = end;
  }
  header += '}';
  header.resize(static_cast<size_t>(round_up(static_cast<int64_t>(header.size()), 8)), ' ');
  const auto header_bytes = static_cast<int64_t>(header.size());
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    throw UsageError("safetensors",
                     "{}: header of {} bytes for {} tensors, the limit is {}; split "
                     "the tensors over several files",
                     path_, header_bytes, tensors.size(), kMaxSafetensorsHeaderBytes);
  }
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &header_bytes, 8);
  file_.write_at(0, std::as_bytes(std::span(prefix)));
  file_.write_at(8, std::as_bytes(std::span(header)));
  for (auto& entry : slots_) {
    entry.second.offset += 8 + header_bytes;
  }
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> data) {
  const auto found = slots_.find(name);
  if (found == slots_.end() || found->second.written) {
    throw UsageError("safetensors", "{}: tensor '{}' {}", path_, name,
                     found == slots_.end() ? "was not announced; list it when the writer is made"
                                           : "was already written; write each tensor once");
  }
  Slot& slot = found->second;
  if (static_cast<int64_t>(data.size()) != slot.bytes) {
    throw UsageError("safetensors", "{}: tensor '{}' needs {} bytes, got {}; pass all of them",
                     path_, name, slot.bytes, data.size());
  }
  file_.write_at(slot.offset, data);
  slot.written = true;
}

void SafetensorsWriter::commit() {
  for (const auto& [name, slot] : slots_) {
    if (!slot.written) {
      throw UsageError("safetensors", "{}: tensor '{}' of {} bytes was not written before commit",
                       path_, name, slot.bytes);
    }
  }
  file_.commit();
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const NamedTensor& entry : tensors) {
    specs.push_back({entry.name, entry.tensor.dtype(), entry.tensor.shape()});
  }
  SafetensorsWriter writer(path, specs, metadata);
  for (const NamedTensor& entry : tensors) {
    writer.write(entry.name, {entry.tensor.data(), static_cast<size_t>(entry.tensor.bytes())});
  }
  writer.commit();
}

}  // namespace lithe
