// Token text to id. Texts lie in one block and lookup takes a view, so that nothing is allocated
// while text is tokenized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lithe {

class TokenTable {
 public:
  // Id of the text, or -1.
  int32_t find(std::string_view text) const {
    if (text.size() > longest_ || slots_.empty()) {
      return -1;
    }
    const uint32_t entry = slots_[slot_of(text, hash_of(text))].entry;
    return entry == 0 ? -1 : entries_[entry - 1].id;
  }

  // False, changing nothing, when the text is there already. id >= 0. Throws MemoryError when
  // texts reach 4 GiB.
  bool insert(std::string_view text, int32_t id);

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  // Bytes of the longest text.
  size_t longest() const { return longest_; }
  // In order of insertion.
  std::string_view text(int64_t index) const {
    return text_of(entries_[static_cast<size_t>(index)]);
  }
  int32_t id(int64_t index) const { return entries_[static_cast<size_t>(index)].id; }

 private:
  struct Entry {
    uint32_t begin;
    uint32_t bytes;
    int32_t id;
  };

  std::string_view text_of(const Entry& entry) const {
    return {texts_.data() + entry.begin, entry.bytes};
  }
  struct Slot {
    uint32_t entry = 0;  // 1 + its index, 0: empty
    uint32_t tag = 0;    // of the hash, so that another text is seldom looked at
  };
  // Where the text is, or the empty slot where it would go.
  size_t slot_of(std::string_view text, size_t hash) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = hash & mask;
    while (slots_[slot].entry != 0 && (slots_[slot].tag != tag_of(hash) ||
                                       text_of(entries_[slots_[slot].entry - 1]) != text)) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }
  static uint32_t tag_of(size_t hash) { return static_cast<uint32_t>(hash >> 32U); }
  static size_t hash_of(std::string_view text) { return std::hash<std::string_view>{}(text); }
  void grow();

  std::string texts_;
  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // a power of two of them
  size_t longest_ = 0;
};

}  // namespace lithe
