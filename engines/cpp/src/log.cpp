#include "log.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

namespace page4d {
namespace {

thread_local const Log* log_of_this_thread = nullptr;

// All logs that have a function. Readers call these functions.
struct Logs {
  std::shared_mutex mutex;
  std::vector<const Log*> entries;

  // Never freed: libraries write until the process ends.
  static Logs& get() {
    static auto* logs = new Logs;
    return *logs;
  }
};

}  // namespace

Log::Log(LogFunction function) : function_(std::move(function)) {
  if (!function_) return;
  Logs& logs = Logs::get();
  const std::unique_lock lock(logs.mutex);
  logs.entries.push_back(this);
}

Log::~Log() {
  if (!function_) return;
  Logs& logs = Logs::get();
  const std::unique_lock lock(logs.mutex);
  logs.entries.erase(std::find(logs.entries.begin(), logs.entries.end(), this));
}

void Log::write(LogLevel level, const char* message) const noexcept {
  if (!function_) return;
  try {
    function_(level, message);
  } catch (...) {  // a log that fails must not stop the engines
  }
}

LogScope::LogScope(const Log& log) noexcept : outer_(std::exchange(log_of_this_thread, &log)) {}
LogScope::~LogScope() { log_of_this_thread = outer_; }

void write_to_logs(LogLevel level, const char* message) noexcept {
  if (log_of_this_thread != nullptr) return log_of_this_thread->write(level, message);
  Logs& logs = Logs::get();
  const std::shared_lock lock(logs.mutex);
  for (const Log* log : logs.entries) log->write(level, message);
}

}  // namespace page4d
