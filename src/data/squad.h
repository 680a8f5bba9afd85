// SQuAD 1.1 and 2.0 question answering files (Rajpurkar et al. 2016, 2018).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lithe {

struct SquadAnswer {
  std::string text;
  int64_t begin = 0;  // byte of the context; in the file a code point
};

struct SquadContext {
  std::string text;
  int64_t article = 0;
};

struct SquadQuestion {
  std::string id;
  std::string text;
  int64_t context = 0;               // of SquadData::contexts
  std::vector<SquadAnswer> answers;  // none: unanswerable
};

struct SquadData {
  std::vector<std::string> titles;  // by article
  std::vector<SquadContext> contexts;
  std::vector<SquadQuestion> questions;  // of one context together
};

// `where` names the text in messages. The file is read as a stream of events, never as a tree.
// Plausible answers of unanswerable questions are ignored. Throws FileError for: bad JSON, missing
// or mistyped keys, an answer that its context does not hold at answer_start, a question with
// neither answers nor "is_impossible": true, or with both, an id that appears twice, an article
// without questions, a context above 1 MiB, more than 1,000 answers to a question. A context
// without questions is left out.
SquadData parse_squad(std::string_view json, std::string_view where);
// Also throws FileError where the file cannot be read.
SquadData read_squad(const std::filesystem::path& path);

// The articles [first, last), renumbered from 0: splits a file without dividing a context. Throws
// UsageError for a range outside the articles.
SquadData select_articles(const SquadData& data, int64_t first, int64_t last);

}  // namespace lithe
