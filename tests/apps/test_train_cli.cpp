// The train program as a user meets it: exit codes, messages, dry runs.
#include <doctest/doctest.h>

#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

namespace {

namespace fs = std::filesystem;

struct Result {
  int code = -1;
  std::string output;
  double seconds = 0;
  std::string last_line() const {
    const std::string text = output.substr(0, output.find_last_not_of('\n') + 1);
    return text.substr(text.rfind('\n') + 1);
  }
};

// stdout and stderr together; with `only_stdout` the latter is dropped.
Result train(const std::string& arguments, bool only_stdout = false) {
  const std::string command = std::string(LITHE_BINARY_DIR) + "/bin/train " + arguments +
                              (only_stdout ? " 2>/dev/null" : " 2>&1");
  Result result;
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> buffer{};
  while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), n);
  }
  const int status = pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::string config(const std::string& name) {
  return std::string(LITHE_SOURCE_DIR) + "/configs/" + name;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("docs/recipe_keys.md holds the keys that the program knows") {
  const Result r = train("--print-keys", true);
  CHECK(r.code == 0);
  std::ifstream in(std::string(LITHE_SOURCE_DIR) + "/docs/recipe_keys.md");
  CHECK(std::string(std::istreambuf_iterator<char>(in), {}) == r.output);
}

TEST_CASE("a dry run of ViT-B/16 ends with one JSON object") {
  const Result r = train(config("bench/vit_b16.yaml") + " --dry-run --json", true);
  CHECK(r.code == 0);
  const auto json = nlohmann::json::parse(r.last_line());
  const int64_t peak = json.at("predicted_peak_bytes").get<int64_t>();
  CHECK(peak > int64_t{5} << 30);
  int64_t sum = 0;
  for (const auto& [name, bytes] : json.at("memory").items()) {
    sum += bytes.get<int64_t>();
  }
  CHECK(sum == peak);
  CHECK(json.at("memory").contains("saved_activations"));
  MESSAGE("dry run took " << r.seconds << " s");
}

TEST_CASE("a dry run tells what freezing and recompute change") {
  const auto peak = [](const std::string& overrides) {
    const Result r =
        train(config("bench/vit_b16.yaml") + " " + overrides + " --dry-run --json", true);
    REQUIRE(r.code == 0);
    return nlohmann::json::parse(r.last_line()).at("predicted_peak_bytes").get<int64_t>();
  };
  const int64_t full = peak("");
  CHECK(peak("freeze.layers=0-8 freeze.patterns=vit.embeddings.*") < full / 2);
  CHECK(peak("recompute=on") < full / 2);
  CHECK(peak("freeze=off recompute=off") == full);
}

TEST_CASE("mistakes in a recipe end with code 2, the line and the nearest name") {
  const fs::path file = fs::temp_directory_path() / "lithe_test_recipe.yaml";
  std::ofstream(file) << "name: x\noptimizer:\n  lrr: 1\n";
  Result r = train(file.string() + " --dry-run");
  CHECK(r.code == 2);
  CHECK(contains(r.output, "lithe_test_recipe.yaml:3"));
  CHECK(contains(r.output, "'optimizer.lr'"));

  std::ofstream(file) << "train:\n  batch_size: many\n";
  r = train(file.string() + " --dry-run");
  CHECK(r.code == 2);
  CHECK(contains(r.output, "lithe_test_recipe.yaml:2"));
  CHECK(contains(r.output, "train.batch_size"));

  r = train(file.string() + ".missing --dry-run");
  CHECK(r.code == 3);
  r = train(config("bench/vit_b16.yaml") + " train.batch_size=-1 --dry-run");
  CHECK(r.code == 2);
  r = train(config("bench/vit_b16.yaml") + " model.vit.num_attention_heads=5 --dry-run");
  CHECK(r.code == 3);
  CHECK(contains(r.output, "num_attention_heads"));
  r = train("--no-such-flag");
  CHECK(r.code == 2);
  r = train(config("bench/vit_b16.yaml") + " --device gpu --dry-run");
  CHECK(r.code == 2);
  r = train(config("bench/vit_b16.yaml") +
            " data.kind=idx data.path=/no/such/folder model.vit.num_channels=1 train.batch_size=1"
            " --out " +
            (fs::temp_directory_path() / "lithe_test_missing_data").string());
  CHECK(r.code == 3);
  CHECK(contains(r.output, "/no/such/folder"));
  fs::remove_all(fs::temp_directory_path() / "lithe_test_missing_data");
  fs::remove(file);
}

TEST_CASE("--help lists every key; --print-config can be loaded again") {
  Result r = train("--help");
  CHECK(r.code == 0);
  for (const char* key :
       {"optimizer.lr", "freeze.layers", "recompute.blocks", "train.batch_size",
        "model.vit.hidden_size", "--dry-run", "--resume", "--compare", "--html"}) {
    INFO(key);
    CHECK(contains(r.output, key));
  }
  r = train(config("quickstart/vit_fashion_mnist.yaml") + " --print-config", true);
  CHECK(r.code == 0);
  const fs::path file = fs::temp_directory_path() / "lithe_test_resolved.yaml";
  std::ofstream(file) << r.output;
  const Result again = train(file.string() + " --print-config", true);
  CHECK(again.code == 0);
  CHECK(again.output == r.output);
  fs::remove(file);
}

TEST_CASE("a small run finishes, is not overwritten unasked, and resumes") {
  const fs::path out = fs::temp_directory_path() / "lithe_test_cli_run";
  fs::remove_all(out);
  const std::string small =
      config("bench/vit_b16.yaml") +
      " model.vit.hidden_size=32 model.vit.num_hidden_layers=2 model.vit.num_attention_heads=2"
      " model.vit.intermediate_size=64 model.vit.image_size=32 model.vit.num_labels=10"
      " train.batch_size=8 train.steps=6 data.synthetic_size=64 checkpoint.every_steps=4"
      " --device cpu --json --out " +
      out.string();
  Result r = train(small, true);
  CHECK(r.code == 0);
  const auto json = nlohmann::json::parse(r.last_line());
  const double predicted = json.at("predicted_peak_bytes").get<double>();
  CHECK(json.at("measured_peak_bytes").get<double>() == doctest::Approx(predicted).epsilon(0.01));
  CHECK(fs::exists(out / "report.html"));

  r = train(small);
  CHECK(r.code == 2);
  CHECK(contains(r.output, "--overwrite"));
  r = train(small + " --resume");
  CHECK(r.code == 0);
  r = train(small + " --overwrite");
  CHECK(r.code == 0);
  fs::remove_all(out);
}

namespace {

// A run of seconds on synthetic images.
std::string small_run(const fs::path& out) {
  return config("bench/vit_b16.yaml") +
         " model.vit.hidden_size=32 model.vit.num_hidden_layers=2 model.vit.num_attention_heads=2"
         " model.vit.intermediate_size=64 model.vit.image_size=32 model.vit.num_labels=10"
         " train.batch_size=8 train.steps=8 data.synthetic_size=64 --out " +
         out.string();
}

}  // namespace

TEST_CASE("--profile prints time by op and leaves a trace that names every node") {
  const fs::path out = fs::temp_directory_path() / "lithe_test_cli_profile";
  fs::remove_all(out);
  const Result r = train(small_run(out) + " --device cpu --profile 2");
  CHECK(r.code == 0);
  CHECK(contains(r.output, "attention_grad"));
  std::ifstream in(out / "trace.json");
  const auto trace = nlohmann::json::parse(in);
  int timed = 0;
  for (const auto& event : trace.at("traceEvents")) {
    timed += event.at("ph") == "X" ? 1 : 0;
  }
  CHECK(timed > 50);
  fs::remove_all(out);
}

TEST_CASE("a device that is not there ends with code 5 and says what to do") {
  const fs::path out = fs::temp_directory_path() / "lithe_test_cli_device";
  fs::remove_all(out);
  const Result r = train(small_run(out) + " --device cuda:99");
  CHECK(r.code == 5);
  CHECK(contains(r.output, "--device cpu"));
  CHECK(!fs::exists(out));
}

TEST_CASE("what does not fit is refused before allocating, with the pass that would fit") {
  const fs::path out = fs::temp_directory_path() / "lithe_test_cli_memory";
  fs::remove_all(out);
  // Far more than any machine that runs tests has; half of it with recompute is too.
  const Result r =
      train(config("bench/vit_b16.yaml") +
            " train.batch_size=100000 data.synthetic_size=64 --device cpu --out " + out.string());
  CHECK(r.code == 4);
  CHECK(contains(r.output, "the largest values at the peak are"));
  CHECK(contains(r.output, "train.batch_size="));
  CHECK(!fs::exists(out));
}

namespace {

// A folder with two tiny recipes, removed with it.
class CompareFolder {
 public:
  CompareFolder() : path_(fs::temp_directory_path() / "lithe_test_cli_compare") {
    fs::remove_all(path_);
    fs::create_directories(path_);
    write("full.yaml", "name: tiny\n");
    write("frozen.yaml", "name: tiny\nfreeze: {layers: 0}\n");
  }
  CompareFolder(const CompareFolder&) = delete;
  CompareFolder& operator=(const CompareFolder&) = delete;
  ~CompareFolder() { fs::remove_all(path_); }

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, const std::string& more) const {
    std::ofstream(path_ / name)
        << "base: " << config("bench/vit_b16.yaml")
        << "\nmodel:\n  vit: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,"
           " intermediate_size: 64, image_size: 32, num_labels: 10}\n"
           "train: {batch_size: 8, steps: 4}\ndata: {synthetic_size: 64}\n"
        << more;
  }

 private:
  fs::path path_;
};

nlohmann::json json_of(const std::string& arguments) {
  const Result r = train(arguments + " --json --device cpu", true);
  REQUIRE(r.code == 0);
  return nlohmann::json::parse(r.last_line());
}

}  // namespace

TEST_CASE("--compare of recipes has the numbers of their dry runs") {
  const CompareFolder folder;
  const std::string both = folder / "full.yaml" + " " + folder / "frozen.yaml";
  const std::string page = folder / "page.html";
  const auto json = json_of("--compare " + both + " train.batch_size=4 --html " + page);
  REQUIRE(json.at("runs").size() == 2);
  const std::array<std::string, 2> files = {"full.yaml", "frozen.yaml"};
  for (size_t i = 0; i < 2; ++i) {
    const auto dry = json_of(folder / files[i] + " train.batch_size=4 --dry-run");
    const auto& run = json["runs"][i];
    CHECK(run.at("memory") == dry.at("memory"));
    CHECK(run.at("predicted_peak_bytes") == dry.at("predicted_peak_bytes"));
    CHECK(run.at("planned_only") == true);
    CHECK(run.at("measured_peak_bytes").is_null());
  }
  CHECK(json["runs"][0]["name"] == "tiny");
  CHECK(json["runs"][1]["name"] == "tiny (2)");
  CHECK(json["runs"][1]["difference_bytes"].get<int64_t>() < 0);
  CHECK(json["values_that_differ"][0]["count"].get<int64_t>() > 0);
  CHECK(json["settings_that_differ"][0]["key"] == "freeze.layers");
  std::ifstream in(page);
  CHECK(contains(std::string(std::istreambuf_iterator<char>(in), {}), "tiny (2) against tiny"));

  const Result r = train("--compare " + both + " --device cpu", true);
  CHECK(r.code == 0);
  CHECK(contains(r.output, "planned only  planned only"));
  CHECK(!contains(r.output, "Results"));
}

TEST_CASE("--compare puts a finished run beside its recipe") {
  const CompareFolder folder;
  const std::string out = folder / "run";
  REQUIRE(train(folder / "full.yaml" + " --device cpu --out " + out).code == 0);
  const auto json = json_of("--compare " + out + " " + folder / "full.yaml");
  const auto& run = json["runs"][0];
  const auto& planned = json["runs"][1];
  CHECK(run["name"] == "run");
  CHECK(planned["name"] == "tiny");
  CHECK(run["planned_only"] == false);
  CHECK(planned["planned_only"] == true);
  CHECK(run["predicted_peak_bytes"] == planned["predicted_peak_bytes"]);
  CHECK(run["memory"] == planned["memory"]);
  CHECK(json["values_that_differ"][0]["count"] == 0);
  CHECK(json["settings_that_differ"].empty());
  CHECK(run["measured_peak_bytes"].get<double>() ==
        doctest::Approx(run["predicted_peak_bytes"].get<double>()).epsilon(0.01));
  CHECK(run["metrics"]["steps"] == 4);
  CHECK(run["times"].contains("step_ms_median"));
  CHECK(planned["metrics"].empty());
  const Result r = train("--compare " + out + " " + folder / "full.yaml" + " --device cpu", true);
  CHECK(contains(r.output, "finished run"));
  CHECK(contains(r.output, "planned only"));
  CHECK(contains(r.output, "samples_per_s"));

  // Overrides change recipes; folders are what they are.
  Result refused = train("--compare " + out + " " + out + " train.batch_size=2");
  CHECK(refused.code == 2);
  CHECK(contains(refused.output, "train.batch_size=2"));
  fs::remove(out + "/memory.json");
  refused = train("--compare " + out + " " + folder / "full.yaml");
  CHECK(refused.code == 3);
  CHECK(contains(refused.output, "has no memory.json"));
  std::ofstream(out + "/memory.json") << "{\"values\": [";
  CHECK(train("--compare " + out + " " + folder / "full.yaml").code == 3);
}

TEST_CASE("--compare refuses what it cannot compare with the codes of every command") {
  const CompareFolder folder;
  const std::string full = folder / "full.yaml";
  Result r = train("--compare " + full);
  CHECK(r.code == 2);
  CHECK(contains(r.output, "give 2 to"));
  CHECK(train("--compare").code == 2);
  r = train("--compare " + full + " " + folder / "missing.yaml");
  CHECK(r.code == 3);
  CHECK(contains(r.output, "missing.yaml"));
  folder.write("bad.yaml", "optimizer: {lrr: 1}\n");
  r = train("--compare " + full + " " + folder / "bad.yaml");
  CHECK(r.code == 2);
  CHECK(contains(r.output, "'optimizer.lr'"));
  CHECK(train("--compare " + full + " " + full + " train.batch_sizes=2").code == 2);
  fs::create_directories(folder / "empty");
  r = train("--compare " + full + " " + folder / "empty");
  CHECK(r.code == 3);
  CHECK(contains(r.output, "has no summary.json"));
  CHECK(train("--compare " + full + " " + full + " --device gpu").code == 2);
  CHECK(train("--compare " + full + " " + full + " --resume").code == 2);
  CHECK(train("--compare " + full + " " + full + " --out x").code == 2);
  CHECK(train(full + " --html page.html").code == 2);
  r = train("--compare " + full + " " + full + " --html " + folder / "no/such/page.html");
  CHECK(r.code == 3);
}
