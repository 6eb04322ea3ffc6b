// Logs a plugin's errors to TensorRT's logger, since no exception may leave a plugin.
#pragma once

#include <exception>

#include "NvInferRuntime.h"

namespace page4d::plugin {

void find_logger_with(nvinfer1::ILoggerFinder* finder) noexcept;

// To standard error if TensorRT has given no logger.
void log_error(const char* op, const char* message) noexcept;

// What a plugin's method returns: 0, or -1 after logging what was thrown.
template <class F>
int32_t guarded(const char* op, const F& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    log_error(op, error.what());
  } catch (...) {
    log_error(op, "an unknown error");
  }
  return -1;
}

}  // namespace page4d::plugin
