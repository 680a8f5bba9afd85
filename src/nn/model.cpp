#include "nn/model.h"

namespace lithe::nn {

bool Model::any_draws() const {
  bool any = false;
  visit([&](const Module& module) { any = any || module.draws(); });
  return any;
}

std::string_view task_name(Task task) {
  switch (task) {
    case Task::classification:
      return "classification";
    case Task::regression:
      return "regression";
    case Task::span:
      return "span";
  }
  return "";
}

}  // namespace lithe::nn
