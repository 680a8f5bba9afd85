#include "compress/codec_rule.h"

#include <algorithm>

#include "recipe/nearest.h"
#include "tensor/core/glob.h"

namespace lithe {
namespace {

std::string part(const std::string& text, bool behind) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
    throw UsageError("codec.edges", "'{}': write role:codec, role@pattern:codec or pattern:codec",
                     text);
  }
  return behind ? text.substr(colon + 1) : text.substr(0, colon);
}

void expect_fitting(const CodecRule& rule) {
  using Kind = CodecFormat::Kind;
  const Kind kind = rule.format.kind();
  const bool masks = rule.roles == saved_role::kDropoutMask;
  if (kind == Kind::keep || (masks && kind == Kind::recompute)) {
    return;
  }
  if (masks != (kind == Kind::mask)) {
    throw UsageError("codec.edges",
                     "'{}:{}': dropout_mask takes bytes, bits or regenerate, and "
                     "nothing else takes bytes or bits",
                     rule.selector, rule.format.name());
  }
  if (rule.roles == saved_role::kNormStatistics && kind != Kind::recompute) {
    throw UsageError("codec.edges", "'{}:{}': norm_statistics takes regenerate or keep",
                     rule.selector, rule.format.name());
  }
}

}  // namespace

CodecRule::CodecRule(const std::string& text, const CodecFormat::Options& options)
    : format(part(text, true), options, "codec.edges") {
  selector = part(text, false);
  const size_t at = selector.find('@');
  const std::string head = selector.substr(0, at);
  const auto names = saved_role_names();
  const auto role =
      std::find_if(names.begin(), names.end(), [&](const auto& r) { return r.name == head; });
  if (role != names.end()) {
    roles = role->roles;
    pattern = at == std::string::npos ? "*" : selector.substr(at + 1);
  } else if (at != std::string::npos || head.find_first_of("*?./") == std::string::npos) {
    std::vector<std::string> known;
    for (const SavedRoleName& name : names) {
      known.emplace_back(name.name);
    }
    const std::string near = recipe::nearest_name(head, known);
    throw UsageError("codec.edges", "'{}' is neither a role nor a pattern{}; roles are {}", head,
                     near.empty() ? "" : fmt::format(", did you mean {}", near),
                     fmt::join(known, ", "));
  } else {
    pattern = selector;
  }
  expect_fitting(*this);
}

bool CodecRule::chooses(const Graph& g, const SavedValue& v) const {
  return (v.roles & roles) != 0 || roles == ~uint32_t{0}
             ? pattern == "*" || glob_match(pattern, g.name(v.value))
             : false;
}

}  // namespace lithe
