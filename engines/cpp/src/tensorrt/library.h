// A TensorRT library that was opened: nothing of it is linked, so that a program starts, and says what is missing,
// where there is none.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <memory>
#include <mutex>
#include <string>

namespace page4d {

// TensorRT's log: keeps the last error, to explain a failure. Any thread may call.
class TensorrtLog final : public nvinfer1::ILogger {
 public:
  using Words = std::array<char, 512>;

  // One per process, never freed: TensorRT keeps the first one that it is given, and calls it after everything else is
  // gone.
  static TensorrtLog& get();

  void log(Severity severity, const char* message) noexcept override;
  // Forgets the errors of calls that were made on this thread before: to be called ahead of one that may fail.
  void begin() noexcept;
  // The last error since `begin` on this thread, else on any other: TensorRT has threads of its own. Empty where there
  // was none.
  Words last() const noexcept;

 private:
  mutable std::mutex mutex_;
  Words others_{};
};

class TensorrtLibrary {
 public:
  // plans: "tensorrt" or "rtx". file: as dlopen takes it; empty: by its usual names.
  // Throws Error kMissingBackend: not found, or of another major version than the headers that this was built with.
  TensorrtLibrary(const std::string& plans, const std::string& file);

  const std::string& name() const { return name_; }        // "TensorRT-RTX"
  const std::string& version() const { return version_; }  // "1.7.1"

  // With the GPU that it is for current. Throws Error kMissingBackend: TensorRT makes none, as where the driver is too
  // old for it.
  std::unique_ptr<nvinfer1::IRuntime> runtime() const;
  // Of the process; once for each file. Throws Error kMissingBackend where TensorRT refuses it.
  void register_plugins(const std::string& file) const;

 private:
  void* handle_ = nullptr;
  std::string name_, version_;
};

}  // namespace page4d
