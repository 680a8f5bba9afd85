// Whole runs with LoRA: what a run writes, how it goes on, and files that are not what they say.
// With LITHE_EXPORT=FOLDER the model, adapters and logits written stay there for
// tests/reference/check_adapter.py.
#include <doctest/doctest.h>

#include <cstdlib>
#include <functional>
#include <map>

#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "nn/twin.h"
#include "tensor/core/whole_file.h"
#include "train/export.h"
#include "train/image_run.h"
#include "train/run_checks.h"
#include "train/text_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

constexpr int64_t kTexts = 5;
constexpr int64_t kTokens = 11;

const std::vector<std::string> kLora = {"adapter.rank=4",        "adapter.bias=lora_only",
                                        "adapter.dropout=0.05",  "train.epochs=1",
                                        "optimizer.lr=0.01",     "schedule.warmup_steps=2",
                                        "checkpoint.final=true", "model.weights=pretrained"};

// A base model on the disk, as pretrained weights are.
struct BaseFolder : TextFolder {
  explicit BaseFolder(const std::string& name) : TextFolder(name) {
    TextRun run(*this, "base");
    export_model(run.experiment, path / "bert",
                 [&](SlotId slot) { return run.trainer.executor().read_slot(slot); });
  }
};

// Logits of a run's weights for some texts, with the inputs that they belong to.
std::vector<NamedTensor> logits_of(TextRun& run) {
  const StepGraph& step = run.experiment.step(StepKind::eval, {kTexts, kTokens});
  Executor& executor = run.trainer.executor();
  const Program program = executor.bind(*step.graph, step.plan);
  Tensor ids(DType::i64, {kTexts, kTokens});
  Tensor types(DType::i64, {kTexts, kTokens});
  Tensor mask(DType::boolean, {kTexts, kTokens});
  for (int64_t i = 0; i < kTexts * kTokens; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool token = i % kTokens <= 5 + i / kTokens;
    mask.as<bool>()[at] = token;
    ids.as<int64_t>()[at] =
        token ? static_cast<int64_t>(5 + philox(4, 0, at).word[0] % kWords.size()) : 0;
    types.as<int64_t>()[at] = 0;
  }
  const std::vector<NamedTensor> inputs = {
      {"input_ids", ids}, {"token_type_ids", types}, {"attention_mask", mask}};
  for (const NamedTensor& input : inputs) {
    executor.write(program, step.input(input.name), input.tensor);
  }
  executor.write(program, step.input("labels"), Tensor(DType::i64, {kTexts}));
  executor.run(program);
  std::vector<NamedTensor> out = {{"logits", executor.read(program, step.logits)}};
  out.insert(out.end(), inputs.begin(), inputs.end());
  return out;
}

template <typename F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::kFile);
    return e.what();
  }
  return "nothing was refused";
}

}  // namespace

TEST_CASE("a run writes a PEFT folder; another goes on from it; merged weights do the same") {
  const BaseFolder files("lora_files");
  TextRun run(files, "run", with(kLora, {"adapter.merge=true"}));
  const Tensor before = logits_of(run)[0].tensor;
  run.run();
  const std::vector<NamedTensor> seen = logits_of(run);
  const Tensor& logits = seen[0].tensor;
  CHECK(relative_error(before, logits) > 0.05);
  const fs::path adapter = files.path / "run/adapter";
  const nlohmann::json config =
      nlohmann::json::parse(read_whole_file(adapter / "adapter_config.json"));
  CHECK(config.at("r") == 4);
  CHECK(config.at("lora_alpha") == 16);
  CHECK(config.at("target_modules") == nlohmann::json({"query", "value"}));
  CHECK(config.at("modules_to_save") == nlohmann::json({"classifier"}));
  CHECK(config.at("task_type") == "SEQ_CLS");
  CHECK(config.at("base_model_name_or_path") == (files.path / "bert").string());
  const SafetensorsFile tensors = SafetensorsFile::open(adapter / "adapter_model.safetensors");
  CHECK(tensors.names().size() == 2 * 2 * 3 + 2);
  const std::string layer = "base_model.model.bert.encoder.layer.1.attention.self.value.";
  CHECK(tensors.info(layer + "lora_A.weight").shape == Shape{4, 32});
  CHECK(tensors.info(layer + "lora_B.weight").shape == Shape{32, 4});
  CHECK(tensors.contains(layer + "base_layer.bias"));
  CHECK(tensors.contains("base_model.model.classifier.weight"));

  const std::vector<std::string> plain = {"model.weights=pretrained", "train.steps=1"};
  TextRun again(files, "again", with(plain, {"adapter.path=" + adapter.string()}));
  CHECK(same_bits(logits_of(again)[0].tensor, logits));
  CHECK(again.trainer.evaluate().loss == run.trainer.evaluate().loss);

  TextRun merged(files, "merged",
                 with(plain, {"model.path=" + (files.path / "run/model").string()}));
  CHECK(relative_error(logits_of(merged)[0].tensor, logits) < 1e-5);
  CHECK(merged.trainer.evaluate().loss ==
        doctest::Approx(run.trainer.evaluate().loss).epsilon(1e-5));
  for (SlotId s = 0; s < merged.experiment.slots().size(); ++s) {
    CHECK(merged.experiment.slots()[s].cls != MemoryClass::adapters);
  }

  TextRun unmerged(files, "unmerged", kLora);
  unmerged.run();
  CHECK(fs::exists(files.path / "unmerged/adapter/adapter_model.safetensors"));
  CHECK_FALSE(fs::exists(files.path / "unmerged/model"));

  if (const char* kept = std::getenv("LITHE_EXPORT"); kept != nullptr) {
    fs::create_directories(kept);
    fs::copy(files.path / "bert", fs::path(kept) / "base", fs::copy_options::recursive);
    fs::copy(adapter, fs::path(kept) / "adapter", fs::copy_options::recursive);
    fs::copy(files.path / "run/model", fs::path(kept) / "merged", fs::copy_options::recursive);
    write_safetensors(fs::path(kept) / "values.safetensors", seen);
  }
}

TEST_CASE("a resumed run with an adapter is bit-equal") {
  const BaseFolder files("lora_resume");
  for (const std::string compute : {"fp32", "bf16"}) {
    CAPTURE(compute);
    const auto recipe =
        with(kLora, {"train.accumulate=2", "train.clip_norm=0.5", "train.compute=" + compute,
                     "eval.every_steps=-1", "recompute.blocks=1"});
    TextRun whole(files, "whole_" + compute, recipe);
    whole.run();
    {
      TextRun first(files, "parts_" + compute, recipe);
      losses(first, 2);
      const std::atomic<bool> stop{true};
      CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
    }
    {
      TextRun second(files, "parts_" + compute, recipe, RunMode::kResume);
      CHECK(second.trainer.steps_done() == 3);
      second.run();
      check_same_bits(whole, second);
      CHECK(same_bits(logits_of(whole)[0].tensor, logits_of(second)[0].tensor));
    }
    // The state tells another scale, which no slot would.
    const std::string why = refusal([&] {
      TextRun other(files, "parts_" + compute, with(recipe, {"adapter.alpha=8"}), RunMode::kResume);
    });
    INFO(why);
    CHECK(why.find("its scale is not that of the recipe") != std::string::npos);
  }
}

TEST_CASE("a ViT with an adapter goes on from its folder") {
  const fs::path path = fs::temp_directory_path() / "lithe_test_lora_vit";
  fs::remove_all(path);
  const std::vector<std::string> recipe = {"adapter.rank=2", "checkpoint.final=true",
                                           "adapter.bias=all", "adapter.use_rslora=true",
                                           "adapter.modules_to_save=[classifier, projection]"};
  ImageRun run(path / "run", recipe);
  const std::atomic<bool> go{false};
  run.trainer.run(go);
  CHECK(nlohmann::json::parse(read_whole_file(path / "run/adapter/adapter_config.json"))
            .at("task_type")
            .is_null());
  const SafetensorsFile tensors =
      SafetensorsFile::open(path / "run/adapter/adapter_model.safetensors");
  CHECK(tensors.info("base_model.model.vit.embeddings.patch_embeddings.projection.weight").shape ==
        Shape{32, 3, 4, 4});
  ImageRun again(path / "again", {"adapter.path=" + (path / "run/adapter").string()});
  for (SlotId s = 0; s < again.experiment.slots().size(); ++s) {
    const Slot& slot = again.experiment.slots()[s];
    if (slot.kind == SlotKind::parameter) {
      INFO(slot.name);
      CHECK(same_bits(again.trainer.executor().read_slot(s),
                      run.trainer.executor().read_slot(run.experiment.slots().find(slot.name))));
    }
  }
  fs::remove_all(path);
}

TEST_CASE("adapter folders that are not what they say are refused by name") {
  const BaseFolder files("lora_hostile");
  TextRun(files, "run", kLora).run();
  const fs::path good = files.path / "run/adapter";
  const nlohmann::json config =
      nlohmann::json::parse(read_whole_file(good / "adapter_config.json"));
  const SafetensorsFile file = SafetensorsFile::open(good / "adapter_model.safetensors");
  const fs::path bad = files.path / "bad";
  const auto open = [&] {
    return refusal([&] {
      TextRun run(files, "loaded",
                  {"model.weights=pretrained", "adapter.path=" + bad.string(), "train.steps=1"},
                  RunMode::kOverwrite);
    });
  };
  using Tensors = std::map<std::string, Tensor>;
  const auto refused = [&](const std::function<void(nlohmann::json&, Tensors&)>& change) {
    fs::remove_all(bad);
    fs::create_directories(bad);
    nlohmann::json fields = config;
    Tensors tensors;
    for (const std::string& name : file.names()) {
      tensors.emplace(name, file.read(name));
    }
    change(fields, tensors);
    std::vector<NamedTensor> list;
    for (const auto& [name, tensor] : tensors) {
      list.push_back({name, tensor});
    }
    write_text(bad / "adapter_config.json", fields.dump());
    write_safetensors(bad / "adapter_model.safetensors", list);
    return open();
  };
  const auto with_field = [&](const char* key, const nlohmann::json& value) {
    return refused([&](nlohmann::json& fields, Tensors&) { fields[key] = value; });
  };
  const auto says = [](const std::string& text, const std::string& part) {
    INFO(text);
    INFO(part);
    CHECK(text.find(part) != std::string::npos);
  };
  const std::string a = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight";
  says(refused([](nlohmann::json&, Tensors&) {}), "nothing was refused");
  says(with_field("peft_type", "IA3"), "peft_type is 'IA3', only LORA is supported");
  says(with_field("r", 0), "r is 0");
  says(with_field("r", "4"), "r is \"4\"");
  says(with_field("r", 1LL << 40), "r is 1099511627776");
  says(with_field("r", 5), "of rank 5 is wanted");
  says(with_field("lora_alpha", -1), "lora_alpha is -1");
  says(with_field("lora_dropout", 1), "lora_dropout is 1");
  says(with_field("bias", "some"), "bias is 'some'");
  says(with_field("bias", "none"), "is no parameter that its config says is trained");
  says(with_field("bias", "all"), "which its config says is trained");
  says(with_field("use_dora", true), "the field 'use_dora' is set and not supported");
  says(with_field("rank_pattern", {{"query", 2}}), "'rank_pattern' is set");
  says(with_field("init_lora_weights", "pissa"), "may have changed the base");
  says(with_field("modules_to_save", "classifier"), "a list of names is wanted");
  says(with_field("modules_to_save", {"pooler"}), "bert.pooler.dense.weight");
  says(refused([](nlohmann::json& fields, Tensors&) { fields = {1, 2}; }), "an object is wanted");
  says(refused([&](nlohmann::json&, Tensors& t) { t.erase(a); }), "is not");
  says(refused([&](nlohmann::json&, Tensors& t) {
         t[a] = Tensor(DType::f32, {4, 31});
       }),
       "is [4, 31], [4, 32] of rank 4 is wanted");
  says(refused([&](nlohmann::json&, Tensors& t) {
         t[a] = Tensor(DType::i64, {4, 32});
       }),
       "a floating type is wanted");
  says(refused([](nlohmann::json&, Tensors& t) { t["x"] = Tensor(DType::f32, {1}); }),
       "does not start with 'base_model.model.'");
  says(refused(
           [](nlohmann::json&, Tensors& t) { t["base_model.model.x"] = Tensor(DType::f32, {1}); }),
       "'base_model.model.x' is no parameter");
  says(refused([](nlohmann::json&, Tensors& t) { t.clear(); }), "no tensor is a lora_A");
  fs::remove(bad / "adapter_config.json");
  fs::copy(good / "adapter_model.safetensors", bad / "adapter_model.safetensors",
           fs::copy_options::overwrite_existing);
  says(open(), "adapter.path must be a folder with adapter_config.json");
  fs::remove_all(bad);
  says(open(), "bad");
}

TEST_CASE("CUDA: adapters learn as on the CPU, and two runs are bit-equal") {
  if (!cuda_available()) {
    MESSAGE("no CUDA device: not run");
    return;
  }
  const TextFolder files("lora_cuda");
  for (const std::string compute : {"fp32", "bf16"}) {
    CAPTURE(compute);
    const std::vector<std::string> recipe = {"adapter.rank=4",
                                             "adapter.target=[query, key, value, output.dense]",
                                             "adapter.dropout=0.1", "train.compute=" + compute};
    const double tolerance = compute == "bf16" ? 2e-2 : 1e-4;
    TextRun cpu(files, "cpu", recipe, RunMode::kOverwrite);
    TextRun gpu(files, "gpu", recipe, RunMode::kOverwrite, cuda_memory(0));
    TextRun again(files, "again", recipe, RunMode::kOverwrite, cuda_memory(0));
    const std::vector<double> wanted = losses(cpu, 10);
    const std::vector<double> found = losses(gpu, 10);
    for (size_t i = 0; i < wanted.size(); ++i) {
      INFO("step " << i);
      CHECK(found[i] == doctest::Approx(wanted[i]).epsilon(tolerance));
    }
    CHECK(losses(again, 10) == found);
    check_same_bits(gpu, again);
  }
}
