#include "data/squad.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "data/json_events.h"
#include "data/unicode_text.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

constexpr size_t kMaxContextBytes = size_t{1} << 20;
constexpr size_t kMaxAnswers = 1000;      // of one question
constexpr size_t kMinQuestionBytes = 46;  // of a question in the file

bool begins_point(char byte) { return (byte & 0xC0) != 0x80; }

// Byte of a code point of a UTF-8 text, from a table of every 64th.
class CodePoints {
 public:
  explicit CodePoints(std::string_view text) : text_(text) {
    for (size_t at = 0; at < text.size(); ++at) {
      if (begins_point(text[at])) {
        if (count_ % kStride == 0) {
          marks_.push_back(at);
        }
        ++count_;
      }
    }
  }
  int64_t count() const { return count_; }
  // `point` in [0, count()].
  size_t byte(int64_t point) const {
    if (point == count_) {
      return text_.size();
    }
    size_t at = marks_[static_cast<size_t>(point / kStride)];
    for (int64_t left = point % kStride; left > 0; --left) {
      do {
        ++at;
      } while (!begins_point(text_[at]));
    }
    return at;
  }

 private:
  static constexpr int64_t kStride = 64;
  std::string_view text_;
  std::vector<size_t> marks_;
  int64_t count_ = 0;
};

// What object or array an event is inside of.
enum class Level : uint8_t {
  root,
  articles,
  article,
  paragraphs,
  paragraph,
  questions,
  question,
  answers,
  answer,
  ignored,  // anything else
};

class SquadReader final : public JsonEvents {
 public:
  SquadReader(std::string_view json, std::string_view where) : where_(where) {
    // Growing by doubling could take several times the file.
    size_t count = 0;
    for (size_t at = json.find(kQuestionKey); at != std::string_view::npos;
         at = json.find(kQuestionKey, at + kQuestionKey.size())) {
      ++count;
    }
    data_.questions.reserve(std::min(count, json.size() / kMinQuestionBytes));
  }

  SquadData finish() {
    if (data_.questions.empty()) {
      throw FileError("squad",
                      "{}: holds no questions; wanted {{\"data\": [{{\"paragraphs\": ...}}]}}",
                      where_);
    }
    std::vector<size_t> order(data_.questions.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto id = [&](size_t i) -> const std::string& { return data_.questions[i].id; };
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return id(a) < id(b); });
    for (size_t i = 1; i < order.size(); ++i) {
      if (id(order[i]) == id(order[i - 1])) {
        throw FileError("squad", "{}: two questions have id {}; ids must differ", where_,
                        in_quotes(id(order[i])));
      }
    }
    return std::move(data_);
  }

  void begin_object() override {
    if (levels_.empty()) {
      levels_.push_back(Level::root);
      return;
    }
    Level inside = Level::ignored;
    switch (level()) {
      case Level::articles:
        inside = Level::article;
        data_.titles.emplace_back();
        article_question_ = data_.questions.size();
        paragraph_ = 1;
        break;
      case Level::paragraphs:
        inside = Level::paragraph;
        context_.reset();
        first_question_ = data_.questions.size();
        break;
      case Level::questions:
        inside = Level::question;
        open_question();
        break;
      case Level::answers:
        inside = Level::answer;
        answer_text_.reset();
        answer_start_.reset();
        break;
      default:
        if (level() != Level::ignored && wanted_ != nullptr) {
          mistyped();
        }
        break;
    }
    push(inside);
  }
  void end_object() override {
    const Level closed = level();
    levels_.pop_back();
    if (closed == Level::answer) {
      close_answer();
    } else if (closed == Level::question) {
      close_question();
    } else if (closed == Level::paragraph) {
      close_paragraph();
    } else if (closed == Level::article && data_.questions.size() == article_question_) {
      refuse("the article holds no questions; remove it, or give it some");
    }
  }
  void begin_array() override {
    if (levels_.empty()) {
      throw FileError("squad", "{}: is an array; wanted an object with the key \"data\"", where_);
    }
    Level inside = Level::ignored;
    if (wanted_ == kData) {
      inside = Level::articles;
    } else if (wanted_ == kParagraphs) {
      inside = Level::paragraphs;
    } else if (wanted_ == kQuestions) {
      inside = Level::questions;
    } else if (wanted_ == kAnswers) {
      inside = Level::answers;
    } else {
      check_plain();
    }
    push(inside);
  }
  void end_array() override { levels_.pop_back(); }

  void key(std::string& name) override {
    wanted_ = nullptr;
    const auto match = [&](Level in, const char* known) {
      if (level() == in && name == known) {
        wanted_ = known;
      }
    };
    match(Level::root, kData);
    match(Level::article, kParagraphs);
    match(Level::article, kTitle);
    match(Level::paragraph, kContext);
    match(Level::paragraph, kQuestions);
    match(Level::question, kQuestion);
    match(Level::question, kId);
    match(Level::question, kImpossible);
    match(Level::question, kAnswers);
    match(Level::answer, kText);
    match(Level::answer, kStart);
  }
  void string(std::string& value) override {
    if (wanted_ == kTitle) {
      data_.titles.back() = std::move(value);
    } else if (wanted_ == kContext) {
      if (value.size() > kMaxContextBytes) {
        refuse("a context of {} bytes; at most {}, divide it", value.size(), kMaxContextBytes);
      }
      once(context_, std::move(value));
    } else if (wanted_ == kQuestion) {
      once(question_text_, std::move(value));
    } else if (wanted_ == kId) {
      once(id_, std::move(value));
    } else if (wanted_ == kText) {
      once(answer_text_, std::move(value));
    } else {
      check_plain();
    }
    wanted_ = nullptr;
  }
  void number(std::string_view, std::optional<int64_t> integer) override {
    if (wanted_ == kStart && integer) {
      once(answer_start_, *integer);
    } else {
      check_plain();
    }
    wanted_ = nullptr;
  }
  void boolean(bool value) override {
    if (wanted_ == kImpossible) {
      once(impossible_, value);
    } else {
      check_plain();
    }
    wanted_ = nullptr;
  }
  void null() override {
    check_plain();
    wanted_ = nullptr;
  }

 private:
  static constexpr std::string_view kQuestionKey = "\"question\"";
  static constexpr const char* kData = "data";
  static constexpr const char* kParagraphs = "paragraphs";
  static constexpr const char* kTitle = "title";
  static constexpr const char* kContext = "context";
  static constexpr const char* kQuestions = "qas";
  static constexpr const char* kQuestion = "question";
  static constexpr const char* kId = "id";
  static constexpr const char* kImpossible = "is_impossible";
  static constexpr const char* kAnswers = "answers";
  static constexpr const char* kText = "text";
  static constexpr const char* kStart = "answer_start";

  Level level() const { return levels_.empty() ? Level::ignored : levels_.back(); }
  void push(Level level) {
    levels_.push_back(level);
    wanted_ = nullptr;
  }

  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    std::string place;
    if (!data_.titles.empty()) {
      place = fmt::format("article {}, paragraph {}{}: ", data_.titles.size(), paragraph_,
                          asked_ > 0 ? fmt::format(", question {}", asked_) : "");
    }
    throw FileError("squad", "{}: {}{}", where_, place,
                    fmt::format(text, std::forward<Args>(args)...));
  }
  [[noreturn]] void mistyped() const {
    const std::string_view key = wanted_;
    refuse("\"{}\" is of the wrong type; wanted {}", key,
           key == kImpossible ? "true or false"
           : key == kStart    ? "an integer"
           : key == kData || key == kParagraphs || key == kQuestions || key == kAnswers
               ? "an array"
               : "a string");
  }
  // Where the reader expects something else than what has come.
  void check_plain() const {
    if (levels_.empty()) {
      throw FileError("squad", "{}: is a single value; wanted an object with the key \"data\"",
                      where_);
    }
    if (wanted_ != nullptr) {
      mistyped();
    }
    const Level in = level();
    if (in == Level::articles || in == Level::paragraphs || in == Level::questions ||
        in == Level::answers) {
      refuse("an array of objects holds something else; wanted only objects");
    }
  }
  template <typename T>
  void once(std::optional<T>& slot, T value) const {
    if (slot) {
      refuse("key \"{}\" appears twice; remove one", wanted_);
    }
    slot.emplace(std::move(value));
  }

  void open_question() {
    asked_ = static_cast<int64_t>(data_.questions.size() - first_question_) + 1;
    data_.questions.emplace_back();
    question_text_.reset();
    id_.reset();
    impossible_.reset();
  }
  void close_answer() {
    if (!answer_text_ || !answer_start_) {
      refuse("an answer lacks \"{}\"; add it", answer_text_ ? kStart : kText);
    }
    if (answer_text_->empty()) {
      refuse("an answer's text is empty; remove it, and set is_impossible where there is none");
    }
    if (data_.questions.back().answers.size() == kMaxAnswers) {
      refuse("more than {} answers; keep the best", kMaxAnswers);
    }
    // Code points until the paragraph's context is known: it may come after its questions.
    data_.questions.back().answers.push_back({std::move(*answer_text_), *answer_start_});
  }
  void close_question() {
    SquadQuestion& question = data_.questions.back();
    if (!question_text_ || !id_) {
      refuse("lacks \"{}\"; add it", id_ ? kQuestion : kId);
    }
    if (id_->empty()) {
      refuse("\"id\" is empty; predictions need it");
    }
    question.text = std::move(*question_text_);
    question.id = std::move(*id_);
    const bool impossible = impossible_.value_or(false);
    if (question.answers.empty() && !impossible) {
      refuse("id {} has no answers; give one, or set \"is_impossible\": true",
             in_quotes(question.id));
    }
    if (!question.answers.empty() && impossible) {
      refuse("id {} is_impossible and has answers; move them to plausible_answers",
             in_quotes(question.id));
    }
  }
  void close_paragraph() {
    if (!context_) {
      refuse("the paragraph lacks \"{}\"; add it", kContext);
    }
    if (data_.questions.size() == first_question_) {
      ++paragraph_;
      return;
    }
    const CodePoints points(*context_);
    for (size_t i = first_question_; i < data_.questions.size(); ++i) {
      SquadQuestion& question = data_.questions[i];
      question.context = static_cast<int64_t>(data_.contexts.size());
      for (SquadAnswer& answer : question.answers) {
        const int64_t start = answer.begin;
        const bool inside = start >= 0 && start <= points.count();
        const size_t byte = inside ? points.byte(start) : 0;
        if (!inside || context_->compare(byte, answer.text.size(), answer.text) != 0) {
          throw FileError("squad",
                          "{}: id {}: answer {} is not at answer_start {} of its context "
                          "({} characters); answer_start counts characters from 0",
                          where_, in_quotes(question.id), in_quotes(answer.text), start,
                          points.count());
        }
        answer.begin = static_cast<int64_t>(byte);
      }
    }
    data_.contexts.push_back({std::move(*context_), static_cast<int64_t>(data_.titles.size()) - 1});
    ++paragraph_;
    asked_ = 0;
  }

  std::string_view where_;
  SquadData data_;
  std::vector<Level> levels_;
  const char* wanted_ = nullptr;  // the known key whose value comes next
  int64_t paragraph_ = 1;         // of the article, from 1, for messages
  int64_t asked_ = 0;             // question of the paragraph, from 1
  size_t first_question_ = 0;     // of the paragraph
  size_t article_question_ = 0;   // first of the article
  std::optional<std::string> context_, question_text_, id_, answer_text_;
  std::optional<int64_t> answer_start_;
  std::optional<bool> impossible_;
};

}  // namespace

SquadData parse_squad(std::string_view json, std::string_view where) {
  SquadReader reader(json, where);
  if (const auto problem = read_json(json, reader)) {
    throw FileError("squad", "{}:{}:{}: is no JSON: {}; download it again", where, problem->line,
                    problem->column, problem->what);
  }
  return reader.finish();
}

SquadData read_squad(const std::filesystem::path& path) {
  return parse_squad(read_whole_file(path), path.string());
}

SquadData select_articles(const SquadData& data, int64_t first, int64_t last) {
  const auto articles = static_cast<int64_t>(data.titles.size());
  if (first < 0 || first >= last || last > articles) {
    throw UsageError("squad", "articles {} to {} of {}; wanted 0 <= first < last <= {}", first,
                     last, articles, articles);
  }
  SquadData out;
  out.titles.assign(data.titles.begin() + first, data.titles.begin() + last);
  std::vector<int64_t> moved(data.contexts.size(), -1);
  for (size_t i = 0; i < data.contexts.size(); ++i) {
    const SquadContext& context = data.contexts[i];
    if (context.article >= first && context.article < last) {
      moved[i] = static_cast<int64_t>(out.contexts.size());
      out.contexts.push_back({context.text, context.article - first});
    }
  }
  for (const SquadQuestion& question : data.questions) {
    if (const int64_t context = moved[static_cast<size_t>(question.context)]; context >= 0) {
      out.questions.push_back(question);
      out.questions.back().context = context;
    }
  }
  return out;
}

}  // namespace lithe
