#include "data/image_folder.h"

#include <algorithm>
#include <cctype>

#include "data/decode_image.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

bool is_image(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

std::vector<std::string> subfolders(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw FileError("image_folder", "{}: no such folder; name one with a subfolder a class",
                    folder.string());
  }
  std::vector<std::string> out;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && !is_hidden(entry.path())) {
      out.push_back(entry.path().filename().string());
    }
  }
  std::sort(out.begin(), out.end());
  if (out.empty()) {
    throw FileError("image_folder", "{}: has no subfolders; put the images of each class in one",
                    folder.string());
  }
  return out;
}

class ImageFolder final : public ImageDataset {
 public:
  ImageFolder(fs::path root, std::vector<std::string> classes, int64_t channels)
      : root_(std::move(root)), classes_(std::move(classes)), channels_(channels) {
    for (const std::string& name : subfolders(root_)) {
      const auto found = std::lower_bound(classes_.begin(), classes_.end(), name);
      if (found == classes_.end() || *found != name) {
        throw FileError("image_folder",
                        "{}: is none of the {} classes of the training split; remove or rename it",
                        (root_ / name).string(), classes_.size());
      }
      add_class(name, static_cast<int32_t>(found - classes_.begin()));
    }
    if (entries_.empty()) {
      throw FileError("image_folder", "{}: no .png, .jpg or .jpeg files in {} classes; add images",
                      root_.string(), classes_.size());
    }
  }

  int64_t size() const override { return static_cast<int64_t>(entries_.size()); }
  int64_t classes() const override { return static_cast<int64_t>(classes_.size()); }
  int64_t channels() const override { return channels_; }
  std::optional<ImageShape> image_shape() const override { return std::nullopt; }
  std::string class_name(int64_t label) const override {
    return classes_.at(static_cast<size_t>(label));
  }
  int64_t label(int64_t index) const override { return entries_[static_cast<size_t>(index)].label; }
  ImageView image(int64_t index, std::vector<uint8_t>& scratch) const override {
    return decode_image(root_ / entries_[static_cast<size_t>(index)].file, channels_, scratch);
  }

 private:
  struct Entry {
    std::string file;  // below root_
    int32_t label;
  };

  void add_class(const std::string& name, int32_t label) {
    std::vector<std::string> files;
    for (fs::recursive_directory_iterator it(root_ / name), end; it != end; ++it) {
      if (is_hidden(it->path())) {
        it.disable_recursion_pending();
      } else if (it->is_regular_file() && is_image(it->path())) {
        files.push_back(it->path().lexically_relative(root_).string());
      }
    }
    std::sort(files.begin(), files.end());
    for (std::string& file : files) {
      entries_.push_back({std::move(file), label});
    }
  }

  fs::path root_;
  std::vector<std::string> classes_;
  int64_t channels_;
  std::vector<Entry> entries_;
};

}  // namespace

std::unique_ptr<ImageDataset> open_image_folder(const fs::path& folder, bool train,
                                                int64_t channels) {
  if (channels != 1 && channels != 3) {
    throw UsageError("image_folder", "{} channels; set 3 for colour or 1 for grey", channels);
  }
  const fs::path train_root = folder / "train";
  if (!fs::is_directory(train_root)) {
    return std::make_unique<ImageFolder>(folder, subfolders(folder), channels);
  }
  std::vector<std::string> classes = subfolders(train_root);
  if (train) {
    return std::make_unique<ImageFolder>(train_root, std::move(classes), channels);
  }
  for (const char* split : {"val", "validation", "test"}) {
    if (fs::is_directory(folder / split)) {
      return std::make_unique<ImageFolder>(folder / split, std::move(classes), channels);
    }
  }
  throw FileError("image_folder", "{}: has train/ but none of val/, validation/ and test/; add one",
                  folder.string());
}

}  // namespace lithe
