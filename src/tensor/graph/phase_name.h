// Names of phases, for reports.
#pragma once

#include <string_view>

#include "tensor/graph/graph.h"

namespace lithe {

inline std::string_view phase_name(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::update:
      return "update";
  }
  return "";
}

}  // namespace lithe
