// The GLUE tasks as their files are distributed; the lines are made up in their layouts.
#include <doctest/doctest.h>

#include "../io/temp_folder.h"
#include "data/text_examples.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

TEST_CASE("glue: CoLA has no header, but its test file has one") {
  const TempFolder folder;
  folder.write("CoLA/train.tsv", "gj04\t1\t\tBirds sing.\nbc01\t0\t*\tSing \"birds.\n");
  folder.write("CoLA/test.tsv", "index\tsentence\n0\tDogs bark.\n");
  for (const auto& path : {folder.path(), folder / "CoLA"}) {
    const TextExamples train = read_glue(path, "cola", "train");
    REQUIRE(train.examples.size() == 2);
    CHECK(train.label_names == std::vector<std::string>{"unacceptable", "acceptable"});
    CHECK(train.examples[0].text == "Birds sing.");
    CHECK(train.examples[0].label == 1);
    CHECK(train.examples[1].text == "Sing \"birds.");
    CHECK(train.examples[1].label == 0);
  }
  const TextExamples test = read_glue(folder.path(), "CoLA", "test");
  CHECK_FALSE(test.labelled);
  CHECK(test.examples[0].text == "Dogs bark.");
  CHECK(test.examples[0].label == -1);
  CHECK(has(message_of<FileError>([&] { read_glue(folder.path(), "cola", "dev"); }),
            "no such file, nor CoLA/dev.tsv"));
}

TEST_CASE("glue: MRPC with its byte-order mark and columns") {
  const TempFolder folder;
  folder.write("train.tsv",
               "\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
               "1\t17\t18\tHe said \" no .\tNo , he said .\r\n0\t3\t4\tRain fell .\tSnow fell .");
  const TextExamples train = read_glue(folder.path(), "mrpc", "train");
  REQUIRE(train.examples.size() == 2);
  CHECK(train.examples[0].text == "He said \" no .");
  CHECK(train.examples[0].pair == "No , he said .");
  CHECK(train.examples[0].label == 1);
  CHECK(train.examples[1].pair == "Snow fell .");
}

TEST_CASE("glue: label names in the benchmark's order") {
  const TempFolder folder;
  const std::string mnli =
      "index\tsentence1\tsentence2\tgold_label\n0\ta\tb\tcontradiction\n1\tc\td\tneutral\n"
      "2\te\tf\tentailment\n";
  folder.write("MNLI/dev_matched.tsv", mnli);
  folder.write("MNLI/dev_mismatched.tsv", mnli.substr(0, mnli.find("2\te")));
  const TextExamples dev = read_glue(folder.path(), "mnli", "dev");
  REQUIRE(dev.examples.size() == 3);
  CHECK(dev.examples[0].label == 2);
  CHECK(dev.examples[1].label == 1);
  CHECK(dev.examples[2].label == 0);
  CHECK(read_glue(folder.path(), "mnli", "dev_mismatched").examples.size() == 2);

  folder.write("RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n");
  CHECK(read_glue(folder.path(), "rte", "train").examples[0].label == 1);
  folder.write("QNLI/train.tsv", "index\tquestion\tsentence\tlabel\n0\tq\ts\tentailment\n");
  const TextExamples qnli = read_glue(folder.path(), "qnli", "train");
  CHECK(qnli.examples[0].label == 0);
  CHECK(qnli.examples[0].text == "q");
  CHECK(qnli.examples[0].pair == "s");
  folder.write("RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tneutral\n");
  CHECK(has(message_of<FileError>([&] { read_glue(folder.path(), "rte", "dev"); }),
            "dev.tsv:2: label 'neutral'; wanted one of: 'entailment', 'not_entailment'"));
}

TEST_CASE("glue: QQP drops its malformed rows, others refuse them") {
  const TempFolder folder;
  const std::string header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
  folder.write("QQP/train.tsv", header +
                                    "1\t2\t3\tWhy ?\tHow ?\t0\n4\t5\t6\tOpen\n"
                                    "7\t8\t9\tWhen ?\tWhat time ?\t1\n");
  const TextExamples qqp = read_glue(folder.path(), "qqp", "train");
  CHECK(qqp.examples.size() == 2);
  CHECK(qqp.skipped == 1);
  CHECK(qqp.examples[1].label == 1);
  folder.write("SST-2/train.tsv", "sentence\tlabel\nfine \t1\nbroken\n");
  CHECK(has(message_of<FileError>([&] { read_glue(folder.path(), "sst2", "train"); }),
            "train.tsv:3: 1 columns, the header has 2"));
}

TEST_CASE("glue: STS-B is a regression") {
  const TempFolder folder;
  const std::string header =
      "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n";
  folder.write("STS-B/dev.tsv", header + "0\tg\tf\t2012\t1\tn\tn\tA cat .\tA dog .\t1.250\n");
  const TextExamples dev = read_glue(folder.path(), "stsb", "dev");
  CHECK(dev.regression);
  CHECK(dev.label_names.empty());
  CHECK(dev.examples[0].score == 1.25);
  CHECK(dev.examples[0].pair == "A dog .");
}

TEST_CASE("glue: tasks and splits by name") {
  CHECK(glue_tasks().size() == 8);
  CHECK(glue_task("STS-B").name == "stsb");
  CHECK(glue_task("SST-2").name == "sst2");
  CHECK(has(message_of<UsageError>([] { glue_task("sst"); }), "known tasks are: cola, mnli"));
  CHECK(has(message_of<UsageError>([] { read_glue("x", "rte", "validation"); }),
            "split 'validation' of rte; wanted train, dev or test"));
  CHECK(has(message_of<UsageError>([] { read_glue("x", "rte", "dev_mismatched"); }), "wanted"));
  for (const GlueTask& task : glue_tasks()) {
    CAPTURE(task.name);
    CHECK_FALSE(task.metrics.empty());
    CHECK((task.label_names.empty() == (task.name == "stsb")));
  }
}

}  // namespace
}  // namespace lithe
