// How the numbers of a run are called and written.
#pragma once

#include <functional>
#include <string>

namespace lithe {

// "eval_accuracy" -> "Evaluation accuracy".
std::string metric_title(const std::string& key);

// Whether the metric is a share of 1, written in percent.
bool is_fraction(const std::string& key);

// By its key: a share in percent, bytes, or a count; "NaN" when not finite.
std::function<std::string(double)> metric_format(const std::string& key);

// A time of a run's summary: "_s" are seconds, what has "_ms" milliseconds.
std::string format_run_time(const std::string& key, double time);

}  // namespace lithe
