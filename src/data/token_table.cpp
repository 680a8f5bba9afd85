#include "data/token_table.h"

#include <algorithm>
#include <limits>

#include "tensor/core/error.h"

namespace lithe {

bool TokenTable::insert(std::string_view text, int32_t id) {
  if (entries_.size() * 2 >= slots_.size()) {
    grow();
  }
  const size_t hash = hash_of(text);
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.entry != 0) {
    return false;
  }
  constexpr size_t kLimit = std::numeric_limits<uint32_t>::max();
  if (texts_.size() + text.size() > kLimit || entries_.size() + 1 >= kLimit / 2) {
    throw MemoryError("tokenizer", "a vocabulary of {} tokens and {} bytes; at most {} bytes fit",
                      entries_.size() + 1, texts_.size() + text.size(), kLimit);
  }
  entries_.push_back(
      {static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(text.size()), id});
  texts_.append(text);
  slot = {static_cast<uint32_t>(entries_.size()), tag_of(hash)};
  longest_ = std::max(longest_, text.size());
  return true;
}

void TokenTable::grow() {
  slots_.assign(std::max<size_t>(16, slots_.size() * 2), Slot{});
  for (size_t i = 0; i < entries_.size(); ++i) {
    const std::string_view text = text_of(entries_[i]);
    const size_t hash = hash_of(text);
    slots_[slot_of(text, hash)] = {static_cast<uint32_t>(i + 1), tag_of(hash)};
  }
}

}  // namespace lithe
