#include "report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "report/units.h"

namespace lithe {
namespace {

constexpr double kWindowSeconds = 30;
constexpr double kTerminalInterval = 0.1;
constexpr double kFileInterval = 10;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void write_to_stderr(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

int terminal_columns() {
  struct winsize size = {};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string progress_line(int64_t step, int64_t total_steps, double samples_per_s, double loss,
                          double seconds_left, std::string_view what) {
  std::string line = fmt::format("{} {}/{}", what, step, total_steps);
  if (total_steps > 0) {
    line += fmt::format("  {:.1f}%",
                        100.0 * static_cast<double>(step) / static_cast<double>(total_steps));
  }
  if (samples_per_s > 0) {
    line += fmt::format("  {} samples/s", format_count(samples_per_s));
  }
  line += fmt::format("  loss {}", format_number(loss));
  if (seconds_left >= 0) {
    line += fmt::format("  {} left", format_duration(seconds_left));
  }
  return line;
}

Progress::Progress(int64_t total_steps, int64_t first_step)
    : Progress(total_steps, first_step, ::isatty(STDERR_FILENO) == 1, terminal_columns(),
               steady_seconds, write_to_stderr) {}

Progress Progress::evaluation(int64_t batches) {
  return {batches,
          0,
          ::isatty(STDERR_FILENO) == 1,
          terminal_columns(),
          steady_seconds,
          write_to_stderr,
          "evaluating"};
}

Progress::Progress(int64_t total_steps, int64_t first_step, bool terminal, int columns, Clock clock,
                   Writer writer, std::string_view what)
    : what_(what),
      total_steps_(total_steps),
      terminal_(terminal),
      columns_(columns),
      clock_(std::move(clock)),
      writer_(std::move(writer)),
      now_{clock_(), first_step, 0} {
  marks_.push_back(now_);
}

Progress::~Progress() { finish(); }

double Progress::samples_per_s() const {
  const double seconds = now_.time - marks_.front().time;
  return seconds > 0 ? static_cast<double>(now_.samples - marks_.front().samples) / seconds : 0;
}

void Progress::update(int64_t step, int64_t samples, double loss) {
  now_ = {clock_(), step, now_.samples + samples};
  if (now_.time - marks_.back().time >= kTerminalInterval) {
    marks_.push_back(now_);
  }
  while (marks_.size() > 2 && now_.time - marks_.front().time > kWindowSeconds) {
    marks_.pop_front();
  }
  const bool last = step >= total_steps_ && (terminal_ || what_ == "step");
  if (!last && now_.time - shown_at_ < (terminal_ ? kTerminalInterval : kFileInterval)) {
    return;
  }
  shown_at_ = now_.time;
  const double seconds = now_.time - marks_.front().time;
  const int64_t steps = now_.step - marks_.front().step;
  const double left = seconds > 0 && steps > 0 ? seconds / static_cast<double>(steps) *
                                                     static_cast<double>(total_steps_ - step)
                                               : -1;
  std::string line = progress_line(step, total_steps_, samples_per_s(), loss, left, what_);
  if (!terminal_) {
    writer_(line + "\n");
    return;
  }
  // A line that wraps could not be rewritten.
  if (columns_ > 1 && static_cast<int>(line.size()) > columns_ - 1) {
    line.resize(static_cast<size_t>(columns_ - 1));
  }
  writer_("\r\x1b[K" + line);
  open_line_ = true;
}

void Progress::finish() {
  if (open_line_) {
    writer_("\n");
    open_line_ = false;
  }
}

}  // namespace lithe
