#include "train/evaluation.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "data/metrics.h"

namespace lithe {
namespace {

const Tensor& labels_of(const Batch& batch) {
  const Tensor* labels = batch.find("labels");
  if (labels == nullptr) {
    throw UsageError("eval", "the evaluation data has no labels; set eval.every_steps=-1");
  }
  return *labels;
}

class Classification final : public Evaluation {
 public:
  Classification(int64_t classes, std::string_view main) : classes_(classes), main_(main) {}

  void add(const Batch& batch, const Tensor& logits) override {
    const auto values = logits.as<float>();
    const auto labels = labels_of(batch).as<int64_t>();
    const auto width = static_cast<std::ptrdiff_t>(logits.shape().back());
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto row = values.begin() + static_cast<std::ptrdiff_t>(i) * width;
      predictions_.push_back(std::max_element(row, row + width) - row);
      labels_.push_back(labels[i]);
    }
  }

  NamedNumbers result() const override {
    NamedNumbers out;
    const std::array<std::string_view, 3> names = {"accuracy", "f1", "matthews"};
    const auto put = [&](std::string_view name) {
      out.emplace_back(name, class_metric(name, predictions_, labels_, classes_));
    };
    put(main_);
    for (const std::string_view name : names) {
      if (name != main_) {
        put(name);
      }
    }
    return out;
  }

 private:
  int64_t classes_;
  std::string main_;
  std::vector<int64_t> predictions_;
  std::vector<int64_t> labels_;
};

class Regression final : public Evaluation {
 public:
  void add(const Batch& batch, const Tensor& logits) override {
    const auto values = logits.as<float>();
    const auto labels = labels_of(batch).as<float>();
    predictions_.insert(predictions_.end(), values.begin(), values.end());
    labels_.insert(labels_.end(), labels.begin(), labels.end());
  }

  NamedNumbers result() const override {
    NamedNumbers out;
    for (const std::string_view name : {"pearson", "spearman", "mse"}) {
      out.emplace_back(name, score_metric(name, predictions_, labels_));
    }
    return out;
  }

 private:
  std::vector<double> predictions_;
  std::vector<double> labels_;
};

}  // namespace

std::unique_ptr<Evaluation> make_classification_evaluation(int64_t classes, std::string_view main) {
  return std::make_unique<Classification>(classes, main);
}

std::unique_ptr<Evaluation> make_regression_evaluation() { return std::make_unique<Regression>(); }

}  // namespace lithe
