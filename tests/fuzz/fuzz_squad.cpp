// Any bytes as a SQuAD file: they read, or a FileError says why not; answers lie in their contexts.
#include <cstddef>
#include <cstdint>

#include "data/squad_metrics.h"
#include "tensor/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  try {
    const lithe::SquadData data =
        lithe::parse_squad({reinterpret_cast<const char*>(bytes), size}, "fuzz");
    for (const lithe::SquadQuestion& question : data.questions) {
      const lithe::SquadContext& context = data.contexts.at(static_cast<size_t>(question.context));
      data.titles.at(static_cast<size_t>(context.article));
      for (const lithe::SquadAnswer& answer : question.answers) {
        if (context.text.compare(static_cast<size_t>(answer.begin), answer.text.size(),
                                 answer.text) != 0) {
          __builtin_trap();
        }
      }
    }
    std::vector<lithe::SquadPrediction> said(data.questions.size());
    for (size_t i = 0; i < said.size(); ++i) {
      said[i].text = said[i].answer = data.questions[i].text;
    }
    lithe::score_squad(data, said);
  } catch (const lithe::FileError&) {
  }
  return 0;
}
