#include <nlohmann/json.hpp>
#include <set>

#include "io/safetensors.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxIndexBytes = 100 * 1024 * 1024;
constexpr int kMaxDepth = 16;

// Reads {"metadata": {...}, "weight_map": {tensor: shard}}; whatever stands outside weight_map is
// skipped, up to a bounded depth.
class IndexReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  IndexReader(const std::string& file, std::map<std::string, std::string>& weight_map)
      : file_(file), weight_map_(weight_map) {}

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return scalar("a number"); }
  bool number_unsigned(number_unsigned_t) override { return scalar("a number"); }
  bool number_float(number_float_t, const string_t&) override { return scalar("a number"); }
  bool binary(binary_t&) override { return scalar("binary data"); }

  bool string(string_t& value) override {
    if (!in_map_) {
      return scalar("a string");
    }
    // A shard beside the index and nowhere else: an index must not reach other folders.
    if (value.empty() || fs::path(value).filename() != value || value == "." || value == ".." ||
        value.find('\0') != std::string::npos) {
      fail(fmt::format("'{}' lies in '{}', which is not a plain file name", printable(key_),
                       printable(value)));
    }
    weight_map_[key_] = value;
    return true;
  }

  bool start_object(std::size_t) override {
    if (depth_ == 1 && key_ == "weight_map") {
      in_map_ = true;
      found_ = true;
    } else if (in_map_) {
      return scalar("an object");
    }
    return enter();
  }
  bool end_object() override {
    in_map_ = false;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return scalar("an array") && enter(); }
  bool end_array() override {
    --depth_;
    return true;
  }

  bool key(string_t& value) override {
    if (depth_ == 1 && !root_keys_.insert(value).second) {
      fail(fmt::format("the key '{}' is listed twice", printable(value)));
    }
    if (in_map_ && weight_map_.contains(value)) {
      fail(fmt::format("tensor '{}' is listed twice", printable(value)));
    }
    key_ = std::move(value);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    fail(fmt::format("is not valid JSON at byte {}", position));
  }

  bool found() const { return found_; }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw FileError("safetensors", "{}: {}; download the index again", file_, what);
  }
  bool enter() {
    if (++depth_ > kMaxDepth) {
      fail(fmt::format("is nested deeper than {}", kMaxDepth));
    }
    return true;
  }
  bool scalar(std::string_view what) const {
    if (in_map_ || depth_ == 0 || (depth_ == 1 && key_ == "weight_map")) {
      fail(fmt::format("has {} where weight_map needs tensor and file names", what));
    }
    return true;
  }

  const std::string& file_;
  std::map<std::string, std::string>& weight_map_;
  std::set<std::string> root_keys_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false;
  bool found_ = false;
};

std::map<std::string, std::string> read_index(const fs::path& path) {
  const std::string name = path.string();
  const MappedFile file(path);
  if (file.size() > kMaxIndexBytes) {
    throw FileError("safetensors", "{}: has {} bytes, an index has at most {}; check the file",
                    name, file.size(), kMaxIndexBytes);
  }
  std::map<std::string, std::string> weight_map;
  IndexReader reader(name, weight_map);
  const std::string_view json(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  check_json_tokens(json, name);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  if (!reader.found()) {
    throw FileError("safetensors", "{}: has no \"weight_map\"; download the index again", name);
  }
  return weight_map;
}

}  // namespace

SafetensorsFolder SafetensorsFolder::open(const fs::path& path, std::string_view stem) {
  SafetensorsFolder out;
  out.path_ = path.string();
  const fs::path single = path / fmt::format("{}.safetensors", stem);
  const fs::path index = path / fmt::format("{}.safetensors.index.json", stem);
  if (!fs::is_directory(path) || fs::exists(single)) {
    out.shards_.push_back(SafetensorsFile::open(fs::is_directory(path) ? single : path));
    for (const std::string& name : out.shards_[0].names()) {
      out.shard_of_.emplace(name, 0);
    }
    return out;
  }
  if (!fs::exists(index)) {
    for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
      if (fs::exists(path / pickle)) {
        // One message for both: the file reader refuses the extension and says how to convert.
        SafetensorsFile::open(path / "pytorch_model.bin");
      }
    }
    throw FileError("safetensors",
                    "{}: has neither {}.safetensors nor {}.safetensors.index.json; name the folder "
                    "that holds the weights",
                    out.path_, stem, stem);
  }
  std::map<std::string, size_t> position;  // shard file -> index in shards_
  for (const auto& [name, file] : read_index(index)) {
    const auto [entry, is_new] = position.emplace(file, out.shards_.size());
    if (is_new) {
      out.shards_.push_back(SafetensorsFile::open(path / file));
    }
    const SafetensorsFile& shard = out.shards_[entry->second];
    if (!shard.contains(name)) {
      throw FileError("safetensors",
                      "{}: the index places '{}' there, the shard's {} tensors do not include it; "
                      "download index and shards of one revision",
                      shard.path(), printable(name), shard.names().size());
    }
    out.shard_of_.emplace(name, entry->second);
  }
  // Shards of two revisions: nobody could say which of the two tensors is meant.
  for (size_t i = 0; i < out.shards_.size(); ++i) {
    for (const std::string& name : out.shards_[i].names()) {
      const auto listed = out.shard_of_.find(name);
      if (listed != out.shard_of_.end() && listed->second != i) {
        throw FileError("safetensors",
                        "{}: tensor '{}' is also in {}; download index and shards of one revision",
                        out.shards_[i].path(), printable(name), out.shards_[listed->second].path());
      }
    }
  }
  return out;
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> out;
  out.reserve(shard_of_.size());
  for (const auto& entry : shard_of_) {
    out.push_back(entry.first);
  }
  return out;
}

const SafetensorsFile& SafetensorsFolder::shard(std::string_view name) const {
  const auto found = shard_of_.find(name);
  if (found == shard_of_.end()) {
    throw FileError("safetensors",
                    "{}: holds {} tensors, none named '{}'; check that config.json belongs to "
                    "these weights",
                    path_, shard_of_.size(), name);
  }
  return shards_[found->second];
}

}  // namespace lithe
