#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "tensor/ops/op_table.h"

using namespace lithe;

namespace {

// The ops that the headers of src/tensor/ops declare: "extern const OpDef a_op, b_op;".
std::set<std::string> declared_ops() {
  std::set<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(LITHE_SOURCE_DIR "/src/tensor/ops")) {
    if (entry.path().extension() != ".h") {
      continue;
    }
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const std::string code = std::regex_replace(text.str(), std::regex("//[^\n]*"), "");
    const std::regex declaration("extern const OpDef([^;]*);");
    for (std::sregex_iterator it(code.begin(), code.end(), declaration), end; it != end; ++it) {
      const std::string names = (*it)[1];
      const std::regex name("([a-z0-9_]+)_op");
      for (std::sregex_iterator n(names.begin(), names.end(), name); n != end; ++n) {
        out.insert((*n)[1]);
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("the table holds every op that a header declares, under its variable's name, once") {
  std::set<std::string> listed;
  for (const OpDef* op : op_table()) {
    CAPTURE(op->name);
    CHECK(listed.insert(std::string(op->name)).second);
  }
  CHECK(listed == declared_ops());
  CHECK(listed.size() > 40);
}

TEST_CASE("every op has a shape rule and a CPU kernel, and is found by its name") {
  for (const OpDef* op : op_table()) {
    CAPTURE(op->name);
    CHECK((op->infer != nullptr));
    CHECK(find_op(op->name) == op);
    CHECK((cpu_kernel(*op).run != nullptr));
    CHECK((kernel_lookup(DeviceKind::cpu)(*op).run == cpu_kernel(*op).run));
    CHECK((kernel_lookup(DeviceKind::cuda)(*op).run == cuda_kernel(*op).run));
  }
  CHECK(find_op("no_such_op") == nullptr);
  CHECK(find_op("") == nullptr);
}
