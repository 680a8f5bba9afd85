// The progress line: step, rate, loss, time left.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

namespace lithe {

// "step 1200/9380  12.8%  1843 samples/s  loss 0.4312  3m20s left"; a rate <= 0 or seconds_left < 0
// (not known yet) leaves that part out.
std::string progress_line(int64_t step, int64_t total_steps, double samples_per_s, double loss,
                          double seconds_left, std::string_view what = "step");

// On a terminal rewrites one line at most ten times a second; elsewhere prints a line at most every
// ten seconds. The last step is always shown; that of an evaluation only on a terminal.
class Progress {
 public:
  using Clock = std::function<double()>;                 // seconds, never going back
  using Writer = std::function<void(std::string_view)>;  // bytes to the terminal

  // Writes to stderr, with the system's steady clock.
  explicit Progress(int64_t total_steps, int64_t first_step = 0);
  // The same for a pass over the evaluation data, counted in batches.
  static Progress evaluation(int64_t batches);
  Progress(int64_t total_steps, int64_t first_step, bool terminal, int columns, Clock clock,
           Writer writer, std::string_view what = "step");
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  // After each step: `step` steps are done, the last of them with `samples` samples.
  void update(int64_t step, int64_t samples, double loss);

  // Ends the line, so that what follows starts on its own. Called by the destructor too.
  void finish();

  double samples_per_s() const;  // over the last half minute; 0 when not known yet

 private:
  struct Mark {
    double time;
    int64_t step;
    int64_t samples;
  };

  std::string what_;
  int64_t total_steps_;
  bool terminal_;
  int columns_;
  Clock clock_;
  Writer writer_;
  std::deque<Mark> marks_;  // the last half minute, at most ten a second
  Mark now_;
  double shown_at_ = -1e30;
  bool open_line_ = false;
};

}  // namespace lithe
