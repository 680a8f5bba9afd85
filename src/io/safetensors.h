// Safetensors files: a memory-mapped reader, the sharded folder of Hugging Face checkpoints, and a
// streaming writer. Pickle files are refused: reading one would run code from it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors_header.h"
#include "tensor/core/tensor.h"
#include "tensor/core/whole_file.h"

namespace lithe {

using Metadata = std::map<std::string, std::string, std::less<>>;

class SafetensorsFile {
 public:
  // Maps the file and checks the whole header; throws FileError (one sentence: file, tensor, both
  // sizes, what to do). No tensor data is read yet.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::string& path() const { return path_; }
  std::vector<std::string> names() const;  // sorted
  bool contains(std::string_view name) const { return header_.tensors.contains(name); }
  // The three below throw FileError when the file has no tensor of that name.
  const TensorInfo& info(std::string_view name) const;
  // The tensor's bytes in the mapping, little-endian, not necessarily aligned; valid while this
  // object (or one it was moved to) lives.
  std::span<const std::byte> bytes(std::string_view name) const;
  Tensor read(std::string_view name) const;  // an aligned copy

  const Metadata& metadata() const { return header_.metadata; }

 private:
  SafetensorsFile(std::string path, MappedFile file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  MappedFile file_;
  SafetensorsHeader header_;
  int64_t data_begin_ = 0;
};

// The weights of a model folder: "STEM.safetensors", or "STEM.safetensors.index.json" and its
// shards.
class SafetensorsFolder {
 public:
  // `path` is the folder, or one safetensors file. `stem` is "model" in transformers,
  // "diffusion_pytorch_model" in diffusers, "adapter_model" in PEFT. Throws FileError.
  static SafetensorsFolder open(const std::filesystem::path& path, std::string_view stem = "model");

  std::vector<std::string> names() const;  // sorted; of shards, those that the index lists
  bool contains(std::string_view name) const { return shard_of_.contains(name); }
  const TensorInfo& info(std::string_view name) const { return shard(name).info(name); }
  std::span<const std::byte> bytes(std::string_view name) const { return shard(name).bytes(name); }
  Tensor read(std::string_view name) const { return shard(name).read(name); }
  std::span<const SafetensorsFile> shards() const { return shards_; }

 private:
  const SafetensorsFile& shard(std::string_view name) const;

  std::string path_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, size_t, std::less<>> shard_of_;
};

struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

// Writes tensors one at a time, in any order, so that weights on a device never need a second whole
// copy. The file appears under its name at commit(), complete and synced.
class SafetensorsWriter {
 public:
  // Throws UsageError for a duplicate or reserved name, a name that is not UTF-8, or dtype int4.
  SafetensorsWriter(const std::filesystem::path& path, std::span<const TensorSpec> tensors,
                    const Metadata& metadata = {});

  // All bytes of one tensor; throws UsageError for an unknown name, a second write or a wrong size.
  void write(std::string_view name, std::span<const std::byte> data);
  // Throws UsageError when a tensor was not written.
  void commit();

 private:
  struct Slot {
    int64_t offset = 0;  // from the start of the file
    int64_t bytes = 0;
    bool written = false;
  };
  std::string path_;
  std::map<std::string, Slot, std::less<>> slots_;
  AtomicFile file_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata = {});

}  // namespace lithe
