// The errors a user can meet, each mapped to one exit code.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace lithe {

// Exit codes of the three programs.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,
  kFile = 3,
  kMemory = 4,
  kDevice = 5,
  kNumerical = 6,
  kPeerLost = 75,
  kInterrupted = 130,
};

// Every message reads "[where] what, with both sizes or shapes; what to do".
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, std::string_view where, std::string_view what)
      : std::runtime_error(fmt::format("[{}] {}", where, what)), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// One named type for each exit code; `throw FileError("safetensors", "header of {} bytes ...", n)`.
#define LITHE_ERROR_TYPE(Name, Code)                                                        \
  class Name : public Error {                                                               \
   public:                                                                                  \
    template <typename... Args>                                                             \
    explicit Name(std::string_view where, fmt::format_string<Args...> text, Args&&... args) \
        : Error(Code, where, fmt::format(text, std::forward<Args>(args)...)) {}             \
  }

LITHE_ERROR_TYPE(UsageError, ExitCode::kUsage);          // bad option, recipe or configuration
LITHE_ERROR_TYPE(ShapeError, ExitCode::kUsage);          // shapes or dtypes that do not fit
LITHE_ERROR_TYPE(GraphError, ExitCode::kUsage);          // a graph the verifier refuses
LITHE_ERROR_TYPE(FileError, ExitCode::kFile);            // missing, truncated or hostile file
LITHE_ERROR_TYPE(MemoryError, ExitCode::kMemory);        // does not fit; said before allocating
LITHE_ERROR_TYPE(DeviceError, ExitCode::kDevice);        // device or library failure
LITHE_ERROR_TYPE(NumericalError, ExitCode::kNumerical);  // loss not finite
LITHE_ERROR_TYPE(Interrupted, ExitCode::kInterrupted);   // SIGINT or SIGTERM, checkpoint written

#undef LITHE_ERROR_TYPE

}  // namespace lithe
