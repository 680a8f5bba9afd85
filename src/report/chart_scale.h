// The arithmetic of charts: ticks, fewer points, smoothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lithe {

// Ticks at multiples of 1, 2, 2.5 or 5 times a power of ten, covering [low, high]; the first and
// the last are the ends of the axis. `low` > `high` or equal ends get an axis around them.
std::vector<double> axis_ticks(double low, double high, int about);

// Ascending indices, at most `max_points` (>= 4), with the ends and each stretch's smallest and
// largest finite value; a stretch without a finite value keeps one index, so that its gap shows.
std::vector<size_t> downsample_extremes(const std::vector<double>& y, size_t max_points);

// Ascending indices, at most `max_points` (>= 3): the ends, `peak`, and each stretch's position of
// the largest total, so that no drawn stretch is lower than what it stands for.
std::vector<size_t> downsample_maxima(const std::vector<int64_t>& totals, size_t peak,
                                      size_t max_points);

// `points` values for the positions from `begin` to before `end`, each the largest of its stretch:
// no position is left out, and one may stand for several points. Zeros for no positions.
std::vector<int64_t> stretch_maxima(const std::vector<int64_t>& totals, size_t begin, size_t end,
                                    size_t points);

// Exponential moving average over about `span` points to each side, so that the curve does not lag;
// values that are not finite are passed over and stay NaN in the result.
std::vector<double> smooth(const std::vector<double>& y, double span);

}  // namespace lithe
