#include "report/chart_scale.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lithe {

std::vector<double> axis_ticks(double low, double high, int about) {
  if (!std::isfinite(low) || !std::isfinite(high) || low > high) {
    low = 0;
    high = 1;
  }
  // Closer than the arithmetic can tell apart counts as equal.
  if (high - low <= std::max(std::abs(low), std::abs(high)) * 1e-9) {
    const double margin = std::abs(low) * 0.1;
    low -= margin;
    high += margin == 0 ? 1 : margin;
  }
  const double rough = (high - low) / std::max(about, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough * 0.999999) {
      step = factor * power;
      break;
    }
  }
  const double first = std::floor(low / step + 1e-9);
  const double last = std::ceil(high / step - 1e-9);
  std::vector<double> ticks;
  const auto count = static_cast<size_t>(std::max(last - first + 1, 0.0));
  ticks.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    // + 0.0 turns -0 into 0.
    ticks.push_back((first + static_cast<double>(i)) * step + 0.0);
  }
  return ticks;
}

std::vector<size_t> downsample_extremes(const std::vector<double>& y, size_t max_points) {
  const size_t n = y.size();
  std::vector<size_t> kept;
  if (n <= max_points) {
    kept.resize(n);
    for (size_t i = 0; i < n; ++i) {
      kept[i] = i;
    }
    return kept;
  }
  const size_t stretches = std::max<size_t>((max_points - 2) / 2, 1);
  kept.push_back(0);
  for (size_t b = 0; b < stretches; ++b) {
    const size_t begin = b * n / stretches;
    const size_t end = (b + 1) * n / stretches;
    size_t least = end;
    size_t most = end;
    for (size_t i = begin; i < end; ++i) {
      if (std::isfinite(y[i])) {
        least = least == end || y[i] < y[least] ? i : least;
        most = most == end || y[i] > y[most] ? i : most;
      }
    }
    if (least == end) {
      kept.push_back(begin);
      continue;
    }
    kept.push_back(std::min(least, most));
    kept.push_back(std::max(least, most));
  }
  kept.push_back(n - 1);
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

std::vector<size_t> downsample_maxima(const std::vector<int64_t>& totals, size_t peak,
                                      size_t max_points) {
  const size_t n = totals.size();
  std::vector<size_t> kept;
  const size_t stretches = n <= max_points ? n : std::max<size_t>(max_points - 2, 1);
  for (size_t b = 0; b < stretches; ++b) {
    const size_t begin = b * n / stretches;
    const size_t end = (b + 1) * n / stretches;
    size_t best = begin;
    for (size_t i = begin; i < end; ++i) {
      best = totals[i] > totals[best] ? i : best;
    }
    // Of equal totals the planner's own peak is the one to show.
    if (begin <= peak && peak < end && totals[peak] == totals[best]) {
      best = peak;
    }
    kept.push_back(best);
  }
  if (n > 0) {
    kept.push_back(0);
    kept.push_back(n - 1);
  }
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

std::vector<int64_t> stretch_maxima(const std::vector<int64_t>& totals, size_t begin, size_t end,
                                    size_t points) {
  std::vector<int64_t> out(points, 0);
  const size_t n = end - begin;
  for (size_t p = 0; p < points && n > 0; ++p) {
    const size_t low = p * n / points;
    const size_t high = std::max(low + 1, (p + 1) * n / points);
    out[p] = *std::max_element(totals.begin() + static_cast<std::ptrdiff_t>(begin + low),
                               totals.begin() + static_cast<std::ptrdiff_t>(begin + high));
  }
  return out;
}

std::vector<double> smooth(const std::vector<double>& y, double span) {
  const double keep = span > 1 ? 1 - 2 / (span + 1) : 0;
  std::vector<double> out(y.size(), std::numeric_limits<double>::quiet_NaN());
  double sum = 0;
  double weight = 0;
  // The weighted sum of the points up to i, then of those from i on; point i counts in both.
  std::vector<double> sums(y.size(), 0);
  std::vector<double> weights(y.size(), 0);
  const auto add = [&](size_t i) {
    sum *= keep;
    weight *= keep;
    if (std::isfinite(y[i])) {
      sum += y[i];
      weight += 1;
    }
    sums[i] += sum;
    weights[i] += weight;
  };
  for (size_t i = 0; i < y.size(); ++i) {
    add(i);
  }
  sum = 0;
  weight = 0;
  for (size_t i = y.size(); i-- > 0;) {
    add(i);
  }
  for (size_t i = 0; i < y.size(); ++i) {
    if (std::isfinite(y[i])) {
      out[i] = sums[i] / weights[i];
    }
  }
  return out;
}

}  // namespace lithe
