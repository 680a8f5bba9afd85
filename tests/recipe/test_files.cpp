#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sample.h"

namespace lithe::recipe {
namespace {

namespace fs = std::filesystem;

// A folder of recipes that goes when the test ends.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("lithe_recipe_" + std::to_string(getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string write(const std::string& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
    return at(name);
  }
  std::string at(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

Recipe load(const std::string& path, const std::vector<std::string>& overrides = {}) {
  return Recipe::load(path, sample_schema(), overrides);
}

}  // namespace

TEST_CASE("a recipe file loads, with lines and overrides") {
  const Folder folder;
  const std::string path = folder.write("vit.yaml", "seed: 4\nname: a\n");
  const Recipe recipe = load(path, {"name=b"});
  CHECK(recipe.integer("seed") == 4);
  CHECK(recipe.string("name") == "b");
  CHECK(recipe.where("seed") == path + ":1");
  const std::string bad = folder.write("bad.yaml", "name: a\nsead: 1\n");
  check_refused(2, {bad + ":2: unknown key 'sead'; did you mean 'seed'?"}, [&] { load(bad); });
}

TEST_CASE("a base comes first and is overridden key by key") {
  const Folder folder;
  const std::string root =
      folder.write("base/root.yaml",
                   "name: root\nseed: 1\noptimizer: {lr: 0.1, kind: sgd}\nfreeze: {layers: 0-8}\n");
  const std::string middle =
      folder.write("middle.yaml", "base: base/root.yaml\nseed: 2\noptimizer: {lr: 0.2}\n");
  const std::string leaf =
      folder.write("leaf/leaf.yaml", "seed: 3\nbase: ../middle.yaml\nfreeze: off\n");
  const Recipe recipe = load(leaf);
  CHECK(recipe.string("name") == "root");
  CHECK(recipe.integer("seed") == 3);
  CHECK(recipe.number("optimizer.lr") == 0.2);
  CHECK(recipe.string("optimizer.kind") == "sgd");
  CHECK(!recipe.enabled("freeze"));
  CHECK(recipe.where("name") == root + ":1");
  CHECK(recipe.where("optimizer.lr") == middle + ":3");
  CHECK(load(leaf, {"seed=5"}).integer("seed") == 5);
  CHECK(load(middle).enabled("freeze"));
  // An error in a base names the base.
  folder.write("base/root.yaml", "name: root\nsede: 1\n");
  check_refused(2, {root + ":2", "'sede'"}, [&] { load(leaf); });
}

TEST_CASE("cycles, long chains and bad bases are refused") {
  const Folder folder;
  const std::string self = folder.write("self.yaml", "name: a\nbase: ./self.yaml\n");
  check_refused(2, {self + ":2", "cycle"}, [&] { load(self); });
  const std::string a = folder.write("a.yaml", "base: b.yaml\n");
  folder.write("b.yaml", "base: sub/../a.yaml\n");
  fs::create_directories(folder.at("sub"));
  check_refused(2, {"b.yaml:1", "cycle"}, [&] { load(a); });
  folder.write("chain0.yaml", "seed: 99\n");
  for (int i = 1; i <= 9; ++i) {
    folder.write("chain" + std::to_string(i) + ".yaml",
                 "base: chain" + std::to_string(i - 1) + ".yaml\n");
  }
  CHECK(load(folder.at("chain8.yaml")).integer("seed") == 99);
  check_refused(2, {"chain1.yaml:1", "8"}, [&] { load(folder.at("chain9.yaml")); });
  for (const char* text : {"base: [a.yaml]\n", "base:\n", "base: {a: b}\n", "base: ''\n"}) {
    check_refused(2, {"x.yaml:1", "'base'"}, [&] { load(folder.write("x.yaml", text)); });
  }
  check_refused(3, {"y.yaml:2: base: no file", "did you mean", "chain1.yaml"},
                [&] { load(folder.write("y.yaml", "name: x\nbase: chain11.yaml\n")); });
  check_text_refused("name: x\nbase: a.yaml\n", {"vit.yaml:2", "'base'", "in memory"});
}

TEST_CASE("a missing file is exit code 3 and names the nearest in its folder") {
  const Folder folder;
  folder.write("vit_base.yaml", "");
  folder.write("bert_large.yaml", "");
  check_refused(
      3,
      {"'" + folder.at("vit_bse.yaml") + "'", "did you mean '" + folder.at("vit_base.yaml") + "'?"},
      [&] { load(folder.at("vit_bse.yaml")); });
  const Refusal far = refusal([&] { load(folder.at("qqqqqqqq.txt")); });
  CHECK(far.code == 3);
  CHECK(far.message.find("did you mean") == std::string::npos);
  check_refused(3, {"no folder"}, [&] { load(folder.at("nowhere/vit.yaml")); });
  check_refused(3, {"''"}, [] { load(""); });
}

TEST_CASE("folders, devices and large files are exit code 3") {
  const Folder folder;
  check_refused(3, {"not a regular file"}, [&] { load(folder.at("")); });
  check_refused(3, {"not a regular file"}, [] { load("/dev/zero"); });
  const std::string large = folder.write("large.yaml", std::string((size_t{1} << 20) + 1, '#'));
  check_refused(3, {large, "1048576"}, [&] { load(large); });
  const std::string full = folder.write("full.yaml", std::string(size_t{1} << 20, '#'));
  CHECK(load(full).integer("seed") == 17);
  if (geteuid() != 0) {
    const std::string secret = folder.write("secret.yaml", "seed: 1\n");
    fs::permissions(secret, fs::perms::none);
    check_refused(3, {secret, "permissions"}, [&] { load(secret); });
  }
}

TEST_CASE("the resolved recipe of a chain loads to the same values from one file") {
  const Folder folder;
  folder.write("root.yaml", "optimizer: {lr: 1e-7, no_decay: [bias, 'a b', '~']}\n");
  const std::string leaf = folder.write(
      "leaf.yaml", "base: root.yaml\ndata: {path: 'x y/z'}\nfreeze: {layers: all, schedule: on}\n");
  const Recipe recipe = load(leaf, {"seed=-3"});
  const Recipe again = load(folder.write("resolved.yaml", recipe.resolved()));
  CHECK(again.resolved() == recipe.resolved());
  CHECK(again.number("optimizer.lr") == 1e-7);
  CHECK(again.strings("optimizer.no_decay") == recipe.strings("optimizer.no_decay"));
  CHECK(again.string("data.path") == "x y/z");
  CHECK(again.integer("seed") == -3);
  CHECK(again.enabled("freeze.schedule"));
}

}  // namespace lithe::recipe
