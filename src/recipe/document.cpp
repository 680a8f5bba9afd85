#include "recipe/document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "recipe/format.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

// Length of the UTF-8 sequence at the start of `text`, 0 when it is malformed (RFC 3629).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto more = [&](size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xC2 && first <= 0xDF) {
    return more(1) ? 2 : 0;
  }
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = first == 0xED && byte(1) > 0x9F;
    return more(1) && more(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90;
    const bool too_large = first == 0xF4 && byte(1) > 0x8F;
    return more(1) && more(2) && more(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}

// yaml-cpp would end at a byte 4, mend bad UTF-8 in silence and take a NUL for UTF-16.
void check_bytes(const std::string& text, const Source& source) {
  if (text.size() > kLargestRecipe) {
    throw FileError("recipe", "{}: {} bytes; a recipe has at most {} bytes", source.name,
                    text.size(), kLargestRecipe);
  }
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f) {
      throw UsageError("recipe", "{}: control character {:#04x}; write it as an escape in quotes",
                       source.at(line), byte);
    }
    const size_t length = utf8_length(std::string_view(text).substr(i, 4));
    if (length == 0) {
      throw UsageError("recipe", "{}: byte {:#04x} is not UTF-8; save the file as UTF-8",
                       source.at(line), byte);
    }
    line += byte == '\n' ? 1 : 0;
    i += length;
  }
}

constexpr const char* kNoAliases =
    "anchors and aliases are refused; quote a text that starts with & or *";

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const Source& source) : source_(source) {}

  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& what) const {
    throw UsageError("recipe", "{}: {}", source_.at(line_of(mark)), what);
  }

  // Of the last key or value read.
  int last_line() const { return last_line_; }

  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) {
      refuse(mark, "a second document; a recipe is one document");
    }
  }
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    refuse(mark, fmt::format("anchor '&{}'; {}", excerpt(name), kNoAliases));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, fmt::format("an alias; {}", kNoAliases));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    Node node;
    // An empty value is marked where the next token starts, so its key tells the line.
    node.line = awaiting_value() ? open_.back().key_line : line_of(mark);
    attach(mark, std::move(node));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    check_tag(mark, tag);
    if (value.find('\0') != std::string::npos) {
      refuse(mark, "a text with a NUL character");
    }
    // yaml-cpp turns the escapes for U+0085 and U+00A0 (N, _) into single bytes of Latin-1.
    if (!is_utf8(value)) {
      refuse(mark,
             "an escape that gives no UTF-8; write the character itself, or \\u and its code");
    }
    Node node;
    node.kind = Node::Kind::scalar;
    node.line = last_line_ = line_of(mark);
    node.text = value;
    node.quoted = tag == "!";
    attach(mark, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, Node::Kind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, Node::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or mapping that is still being read.
  struct Open {
    Node node;
    bool has_key = false;
    std::string key = {};
    int key_line = 1;
    std::unordered_map<std::string, int> seen = {};  // key -> line
  };

  static int line_of(const YAML::Mark& mark) { return mark.line + 1; }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!") {
      refuse(mark, fmt::format("tag '{}'; the schema gives the types, and a text that starts with "
                               "'!' needs quotes",
                               excerpt(tag)));
    }
  }

  bool awaiting_value() const {
    return !open_.empty() && open_.back().node.kind == Node::Kind::map && open_.back().has_key;
  }

  void open(const YAML::Mark& mark, const std::string& tag, Node::Kind kind) {
    check_tag(mark, tag);
    if (open_.size() >= kDeepestNesting) {
      refuse(mark, fmt::format("nested deeper than {} levels", kDeepestNesting));
    }
    if (!open_.empty() && open_.back().node.kind == Node::Kind::map && !open_.back().has_key) {
      refuse(mark, "a list or mapping as a key; a key is a name");
    }
    Open entry;
    entry.node.kind = kind;
    entry.node.line = line_of(mark);
    open_.push_back(std::move(entry));
  }

  void close() {
    Node node = std::move(open_.back().node);
    open_.pop_back();
    attach(YAML::Mark(), std::move(node));
  }

  void attach(const YAML::Mark& mark, Node node) {
    if (++values_ > kMostValues) {
      refuse(mark, fmt::format("more than {} values", kMostValues));
    }
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Node::Kind::map && !parent.has_key) {
      take_key(mark, parent, node);
      return;
    }
    if (parent.has_key) {
      node.key = std::move(parent.key);
      node.key_line = parent.key_line;
      parent.has_key = false;
    }
    parent.node.items.push_back(std::move(node));
  }

  void take_key(const YAML::Mark& mark, Open& parent, const Node& node) const {
    if (node.kind != Node::Kind::scalar || node.text.empty()) {
      refuse(mark, "an empty key; a key is a name");
    }
    const auto [at, fresh] = parent.seen.try_emplace(node.text, node.line);
    if (!fresh) {
      refuse(mark, fmt::format("key '{}' is given twice in one mapping; the first is in line {}",
                               excerpt(node.text), at->second));
    }
    parent.has_key = true;
    parent.key = node.text;
    parent.key_line = node.line;
  }

  const Source& source_;
  Node root_;
  std::vector<Open> open_;
  size_t values_ = 0;
  int last_line_ = 1;
  int documents_ = 0;
};

}  // namespace

std::string Source::at(int line) const {
  return command_line ? "command line: " + excerpt(name) : fmt::format("{}:{}", name, line);
}

Node read_document(const std::string& text, const Source& source) {
  check_bytes(text, source);
  // yaml-cpp takes the end of the text for the end of an open quote; an end mark it does not.
  const std::string marked = text + (text.ends_with('\n') ? "...\n" : "\n...\n");
  TreeBuilder builder(source);
  try {
    std::istringstream stream(marked);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    if (error.msg == YAML::ErrorMsg::UNKNOWN_ANCHOR) {
      builder.refuse(error.mark, fmt::format("an alias; {}", kNoAliases));
    }
    const bool open_quote = error.msg == YAML::ErrorMsg::DOC_IN_SCALAR;
    const int line = open_quote ? builder.last_line() : std::max(error.mark.line, 0) + 1;
    throw UsageError("recipe", "{}: not YAML: {}", source.at(line),
                     open_quote ? "a quote in or after this line is not closed" : error.msg);
  }
  return builder.take();
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace lithe::recipe
