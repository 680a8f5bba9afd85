#include "data/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/core/error.h"

namespace lithe {
namespace {

void check_sizes(std::string_view where, size_t predictions, size_t labels) {
  if (predictions != labels) {
    throw ShapeError(where, "{} predictions and {} labels; wanted one of each a sample",
                     predictions, labels);
  }
  if (labels == 0) {
    throw UsageError(where, "no samples; evaluate at least one");
  }
}

// Of each class: how often it was predicted, was the label, was both.
struct ClassCounts {
  std::vector<int64_t> predicted, labelled, both;
};

ClassCounts count_classes(std::string_view where, std::span<const int64_t> predictions,
                          std::span<const int64_t> labels, int64_t classes) {
  check_sizes(where, predictions.size(), labels.size());
  if (classes < 1) {
    throw UsageError(where, "{} classes; wanted at least 1", classes);
  }
  const auto size = static_cast<size_t>(classes);
  ClassCounts out{std::vector<int64_t>(size), std::vector<int64_t>(size),
                  std::vector<int64_t>(size)};
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto predicted = static_cast<size_t>(predictions[i]);
    const auto label = static_cast<size_t>(labels[i]);
    if (predicted >= size || label >= size) {
      throw UsageError(where, "sample {} has prediction {} and label {} with {} classes", i,
                       predictions[i], labels[i], classes);
    }
    ++out.predicted[predicted];
    ++out.labelled[label];
    out.both[label] += predicted == label;
  }
  return out;
}

double correlation(std::span<const double> x, std::span<const double> y) {
  const auto n = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0;
  double yy = 0;
  double xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double dx = x[i] - mean_x;
    const double dy = y[i] - mean_y;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  // Rounding must not pass for variance in a constant sequence.
  const auto constant = [](std::span<const double> values) {
    return std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; });
  };
  if (constant(x) || constant(y) || xx == 0 || yy == 0) {
    return 0;
  }
  return std::clamp(xy / (std::sqrt(xx) * std::sqrt(yy)), -1.0, 1.0);
}

std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) {
      ++end;
    }
    const double rank = 0.5 * static_cast<double>(begin + end - 1);
    for (size_t i = begin; i < end; ++i) {
      out[order[i]] = rank;
    }
    begin = end;
  }
  return out;
}

void check_scores(std::string_view where, std::span<const double> predictions,
                  std::span<const double> labels) {
  check_sizes(where, predictions.size(), labels.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    if (!std::isfinite(predictions[i]) || !std::isfinite(labels[i])) {
      throw NumericalError(where, "sample {} has prediction {} and label {}; both must be finite",
                           i, predictions[i], labels[i]);
    }
  }
}

}  // namespace

double accuracy(std::span<const int64_t> predictions, std::span<const int64_t> labels) {
  check_sizes("accuracy", predictions.size(), labels.size());
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    right += predictions[i] == labels[i];
  }
  return static_cast<double>(right) / static_cast<double>(labels.size());
}

double f1_score(std::span<const int64_t> predictions, std::span<const int64_t> labels,
                int64_t classes) {
  const ClassCounts counts = count_classes("f1", predictions, labels, classes);
  const auto of_class = [&](size_t c) {
    const int64_t total = counts.predicted[c] + counts.labelled[c];
    return total == 0 ? 0.0 : 2 * static_cast<double>(counts.both[c]) / static_cast<double>(total);
  };
  if (classes == 2) {
    return of_class(1);
  }
  double sum = 0;
  int64_t present = 0;
  for (size_t c = 0; c < counts.labelled.size(); ++c) {
    sum += of_class(c);
    present += counts.predicted[c] + counts.labelled[c] > 0;
  }
  return sum / static_cast<double>(present);
}

double matthews_correlation(std::span<const int64_t> predictions, std::span<const int64_t> labels,
                            int64_t classes) {
  const ClassCounts counts = count_classes("matthews", predictions, labels, classes);
  const auto n = static_cast<double>(labels.size());
  double right = 0;
  double product = 0;
  double predicted_squares = 0;
  double labelled_squares = 0;
  for (size_t c = 0; c < counts.labelled.size(); ++c) {
    const auto predicted = static_cast<double>(counts.predicted[c]);
    const auto labelled = static_cast<double>(counts.labelled[c]);
    right += static_cast<double>(counts.both[c]);
    product += predicted * labelled;
    predicted_squares += predicted * predicted;
    labelled_squares += labelled * labelled;
  }
  const double below = (n * n - predicted_squares) * (n * n - labelled_squares);
  return below == 0 ? 0 : (right * n - product) / std::sqrt(below);
}

double pearson_correlation(std::span<const double> predictions, std::span<const double> labels) {
  check_scores("pearson", predictions, labels);
  return correlation(predictions, labels);
}

double spearman_correlation(std::span<const double> predictions, std::span<const double> labels) {
  check_scores("spearman", predictions, labels);
  return correlation(ranks(predictions), ranks(labels));
}

double mean_squared_error(std::span<const double> predictions, std::span<const double> labels) {
  check_scores("mse", predictions, labels);
  double sum = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    sum += (predictions[i] - labels[i]) * (predictions[i] - labels[i]);
  }
  return sum / static_cast<double>(labels.size());
}

double class_metric(std::string_view name, std::span<const int64_t> predictions,
                    std::span<const int64_t> labels, int64_t classes) {
  if (name == "accuracy") {
    return accuracy(predictions, labels);
  }
  if (name == "f1") {
    return f1_score(predictions, labels, classes);
  }
  if (name == "matthews") {
    return matthews_correlation(predictions, labels, classes);
  }
  throw UsageError("metric", "no metric \"{}\" of classes; wanted accuracy, f1 or matthews", name);
}

double score_metric(std::string_view name, std::span<const double> predictions,
                    std::span<const double> labels) {
  if (name == "pearson") {
    return pearson_correlation(predictions, labels);
  }
  if (name == "spearman") {
    return spearman_correlation(predictions, labels);
  }
  if (name == "mse") {
    return mean_squared_error(predictions, labels);
  }
  throw UsageError("metric", "no metric \"{}\" of scores; wanted pearson, spearman or mse", name);
}

}  // namespace lithe
