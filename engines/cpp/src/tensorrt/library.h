// TensorRT's library, opened when it is needed and not linked: without it a program starts, and says what is missing.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <memory>
#include <mutex>
#include <string>

namespace page4d {

// TensorRT's log: for the logs of the pipelines. Keeps the last error, to explain a failure. Any thread may call.
class TensorrtLog final : public nvinfer1::ILogger {
 public:
  using Text = std::array<char, 512>;

  // One per process, never freed: TensorRT keeps the first logger that it gets, and calls it until the process ends.
  static TensorrtLog& get();

  void log(Severity severity, const char* message) noexcept override;
  // Forgets errors of earlier calls. Called before a call that may fail.
  void begin() noexcept;
  // The last error since `begin` on this thread, else on any other: TensorRT has threads of its own. Empty if there was
  // none.
  Text last() const noexcept;

 private:
  mutable std::mutex mutex_;
  Text of_any_thread_{};
};

class TensorrtLibrary {
 public:
  // plans: "tensorrt" or "rtx". file: as for dlopen; empty: the library's usual names.
  // Throws Error kMissingBackend: not found, or of another major version than the headers of this build.
  TensorrtLibrary(const std::string& plans, const std::string& file);

  const std::string& name() const { return name_; }        // "TensorRT-RTX"
  const std::string& version() const { return version_; }  // "1.7.1"

  // For the current GPU. Throws Error kMissingBackend if TensorRT makes no runtime, as when the driver is too old.
  std::unique_ptr<nvinfer1::IRuntime> runtime() const;
  // Once per file and process. Throws Error kMissingBackend if TensorRT refuses the file.
  void register_plugins(const std::string& file) const;

 private:
  void* handle_ = nullptr;
  std::string name_, version_;
};

}  // namespace page4d
