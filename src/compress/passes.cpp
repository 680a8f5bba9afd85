#include "compress/passes.h"

#include <array>

#include "compress/adapter.h"
#include "compress/codec.h"
#include "compress/freeze.h"
#include "compress/recompute.h"

namespace lithe {

std::span<const PassKind* const> pass_kinds() {
  static constexpr std::array<const PassKind*, 4> kKinds = {&adapter_pass, &freeze_pass,
                                                            &recompute_pass, &codec_pass};
  return kKinds;
}

void add_pass_options(recipe::Schema& schema) {
  for (const PassKind* kind : pass_kinds()) {
    schema.section(std::string(kind->name), kind->options(), std::string(kind->help), true);
  }
}

PassManager make_passes(const recipe::Recipe& recipe, std::string_view without) {
  PassManager passes;
  for (const PassKind* kind : pass_kinds()) {
    const std::string name(kind->name);
    if (name != without && recipe.enabled(name)) {
      passes.add(kind->make(recipe.section(name)));
    }
  }
  return passes;
}

}  // namespace lithe
