// Scores of predictions against labels, as scikit-learn and SciPy define them. All throw UsageError
// for no samples and ShapeError for sequences of different lengths. Where a formula divides by zero
// (one class only, a constant sequence) the result is 0.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace lithe {

double accuracy(std::span<const int64_t> predictions, std::span<const int64_t> labels);
// Two classes: harmonic mean of precision and recall of class 1. More: the mean of every class's
// (macro) over the classes that appear. Classes are in [0, classes), else UsageError.
double f1_score(std::span<const int64_t> predictions, std::span<const int64_t> labels,
                int64_t classes);
// Correlation of the confusion matrix (Matthews 1975; Gorodkin 2004 for more than two classes).
double matthews_correlation(std::span<const int64_t> predictions, std::span<const int64_t> labels,
                            int64_t classes);

double pearson_correlation(std::span<const double> predictions, std::span<const double> labels);
// Pearson correlation of the ranks; equal values share their mean rank.
double spearman_correlation(std::span<const double> predictions, std::span<const double> labels);
double mean_squared_error(std::span<const double> predictions, std::span<const double> labels);

// By name: "accuracy", "f1", "matthews".
double class_metric(std::string_view name, std::span<const int64_t> predictions,
                    std::span<const int64_t> labels, int64_t classes);
// By name: "pearson", "spearman", "mse".
double score_metric(std::string_view name, std::span<const double> predictions,
                    std::span<const double> labels);

}  // namespace lithe
