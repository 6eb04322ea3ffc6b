#include "tensorrt/log.h"

#include <atomic>
#include <cstdio>
#include <string>

namespace page4d::plugin {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder_in_use{nullptr};

}  // namespace

void find_logger_with(nvinfer1::ILoggerFinder* finder) noexcept { finder_in_use = finder; }

void log_error(const char* op, const char* message) noexcept {
  try {
    const std::string line = std::string(op) + ": " + message;
    nvinfer1::ILoggerFinder* finder = finder_in_use;
    nvinfer1::ILogger* logger = finder == nullptr ? nullptr : finder->findLogger();
    if (logger != nullptr)
      logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
    else
      std::fprintf(stderr, "%s\n", line.c_str());
  } catch (...) {  // no memory for the line
  }
}

}  // namespace page4d::plugin
