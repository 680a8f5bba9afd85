#include "nn/model.h"

namespace lithe::nn {

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
