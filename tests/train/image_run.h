// The run of tiny_run.h (a ViT) with a trainer and a run folder, on some device.
#pragma once

#include "train/start_weights.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace lithe::testing {

struct ImageRun {
  ImageRun(const std::filesystem::path& path, const std::vector<std::string>& overrides,
           RunMode mode = RunMode::kOverwrite,
           const std::shared_ptr<DeviceMemory>& memory = cpu_memory())
      : recipe(tiny_recipe(overrides)),
        experiment(recipe, memory->kind()),
        folder(path, mode, false),
        trainer(experiment, folder, memory, open_training_data(recipe, experiment.model())) {
    if (mode == RunMode::kResume) {
      trainer.resume();
    } else {
      trainer.start(StartWeights(experiment));
    }
  }
  std::vector<Tensor> slots() { return read_slots(trainer.executor(), experiment); }
  recipe::Recipe recipe;
  Experiment experiment;
  RunFolder folder;
  Trainer trainer;
};

}  // namespace lithe::testing
