// A TensorRT library that was opened: nothing of it is linked, so that a program starts, and says what is missing, where there is none.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>

namespace page4d {

// TensorRT's words: the last error is kept, in memory of its own, for the failure that it explains.
class TensorrtLog final : public nvinfer1::ILogger {
 public:
  // One per process, never freed: TensorRT keeps the first one that it is given, and calls it after everything else is gone.
  static TensorrtLog& get();

  void log(Severity severity, const char* message) noexcept override;
  // Until the next error.
  const char* last() const noexcept { return last_; }

 private:
  char last_[512] = "";
};

class TensorrtLibrary {
 public:
  // plans: "tensorrt" or "rtx". file: as dlopen takes it; empty: by its usual names.
  // Throws Error kMissingBackend: not found, or of another major version than the headers that this was built with.
  TensorrtLibrary(const std::string& plans, const std::string& file);

  const std::string& name() const { return name_; }        // "TensorRT-RTX"
  const std::string& version() const { return version_; }  // "1.7.1"

  std::unique_ptr<nvinfer1::IRuntime> runtime() const;
  // Of the process; once for each file. Throws Error kMissingBackend where TensorRT refuses it.
  void register_plugins(const std::string& file) const;

 private:
  void* handle_ = nullptr;
  std::string name_, version_;
};

}  // namespace page4d
