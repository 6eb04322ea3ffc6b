// Messages of the library, and of libraries that know one log per process, for the logs of the pipelines.
#pragma once

#include "page4d/log.h"

namespace page4d {

// A pipeline's log. While it exists it also gets what libraries say on threads of their own.
class Log {
 public:
  // function: empty if the caller wants no messages.
  explicit Log(LogFunction function);
  // Waits until no thread is in its function.
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // What the function throws is swallowed. Allocates nothing.
  void write(LogLevel level, const char* message) const noexcept;

 private:
  LogFunction function_;
};

// While it exists, what libraries say on this thread goes to one log alone. The log must outlive it.
class LogScope {
 public:
  explicit LogScope(const Log& log) noexcept;
  ~LogScope();
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;

 private:
  const Log* outer_;
};

// A library's message, on any thread: to the log of this thread's scope, else to every log.
void write_to_logs(LogLevel level, const char* message) noexcept;

}  // namespace page4d
