#include "tensorrt/library.h"

#include <dlfcn.h>

#include <cstdio>
#include <mutex>
#include <set>
#include <vector>

#include "log.h"
#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

constexpr int kRtxHeaders = 11;  // TensorRT-RTX has the interface of this major version

thread_local TensorrtLog::Text of_this_thread{};

// The first file that opens; null if none does, with the reason of the first.
void* open_first(const std::vector<std::string>& files, std::string& reason) {
  for (const std::string& file : files) {
    // global: a plan's own kernels and the plugins look up its symbols
    if (void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL)) return handle;
    if (reason.empty()) reason = dlerror();
  }
  return nullptr;
}

template <class F>
F symbol(void* handle, const char* name) {
  const auto function = reinterpret_cast<F>(dlsym(handle, name));
  if (function == nullptr)
    throw Error(Code::kMissingBackend, "this is no TensorRT library").got(text("no symbol ", name));
  return function;
}

}  // namespace

TensorrtLog& TensorrtLog::get() {
  static auto* log = new TensorrtLog;  // never freed
  return *log;
}

void TensorrtLog::log(Severity severity, const char* message) noexcept {
  if (severity == Severity::kVERBOSE) return;
  const bool is_error = severity == Severity::kERROR || severity == Severity::kINTERNAL_ERROR;
  write_to_logs(is_error                         ? LogLevel::kError
                : severity == Severity::kWARNING ? LogLevel::kWarning
                                                 : LogLevel::kInfo,
                message);
  if (!is_error) return;
  std::snprintf(of_this_thread.data(), of_this_thread.size(), "%s", message);
  const std::lock_guard lock(mutex_);
  of_any_thread_ = of_this_thread;
}

void TensorrtLog::begin() noexcept {
  of_this_thread[0] = 0;
  const std::lock_guard lock(mutex_);
  of_any_thread_[0] = 0;
}

TensorrtLog::Text TensorrtLog::last() const noexcept {
  if (of_this_thread[0] != 0) return of_this_thread;
  const std::lock_guard lock(mutex_);
  return of_any_thread_;
}

TensorrtLibrary::TensorrtLibrary(const std::string& plans, const std::string& file) {
  const bool rtx = plans == "rtx";
  name_ = rtx ? "TensorRT-RTX" : "TensorRT";
  if (rtx && NV_TENSORRT_MAJOR < kRtxHeaders) {
    throw Error(Code::kMissingBackend, "this build of page4d cannot load TensorRT-RTX's plans")
        .got(text("built with the headers of TensorRT ", NV_TENSORRT_MAJOR))
        .allowed(text("those of TensorRT ", kRtxHeaders, ", or TensorRT-RTX's own"))
        .hint("cmake -DTensorRT_ROOT=..");
  }
  std::vector<std::string> files{file};
  if (file.empty()) {
    const std::string major = text(".", NV_TENSORRT_MAJOR);
    files = rtx ? std::vector<std::string>{"libtensorrt_rtx.so.1", "libtensorrt_rtx.so"}
                : std::vector<std::string>{"libnvinfer.so" + major, "libnvinfer_lean.so" + major};
  }
  std::string reason;
  handle_ = open_first(files, reason);
  if (handle_ == nullptr) {
    throw Error(Code::kMissingBackend, name_ + " is not installed")
        .got(reason)
        .allowed(joined(files))
        .hint("LD_LIBRARY_PATH, or Options::tensorrt_library");
  }
  const int number = symbol<int32_t (*)()>(handle_, "getInferLibVersion")();
  version_ = text(number / 10000, ".", number / 100 % 100, ".", number % 100);
  if (!rtx && number / 10000 != NV_TENSORRT_MAJOR) {
    throw Error(Code::kMissingBackend, "this build of page4d is for another TensorRT")
        .got(version_)
        .allowed(text(NV_TENSORRT_MAJOR, ".x"))
        .hint("cmake -DTensorRT_ROOT=..");
  }
}

std::unique_ptr<nvinfer1::IRuntime> TensorrtLibrary::runtime() const {
  const auto create = symbol<void* (*)(void*, int32_t)>(handle_, "createInferRuntime_INTERNAL");
  TensorrtLog& log = TensorrtLog::get();
  log.begin();
  std::unique_ptr<nvinfer1::IRuntime> runtime(static_cast<nvinfer1::IRuntime*>(create(&log, NV_TENSORRT_VERSION)));
  if (runtime == nullptr)
    throw Error(Code::kMissingBackend, name_ + " does not start")
        .got(log.last().data())
        .hint("a newer NVIDIA driver, or another TensorRT");
  return runtime;
}

void TensorrtLibrary::register_plugins(const std::string& file) const {
  static std::mutex mutex;
  static std::set<std::pair<void*, std::string>> registered;
  const std::lock_guard lock(mutex);
  if (registered.count({handle_, file}) != 0) return;
  TensorrtLog& log = TensorrtLog::get();
  log.begin();
  nvinfer1::IPluginRegistry* registry = symbol<nvinfer1::IPluginRegistry* (*)()>(handle_, "getPluginRegistry")();
  if (registry == nullptr || registry->loadLibrary(file.c_str()) == nullptr) {
    throw Error(Code::kMissingBackend, name_ + " refuses the attention plugins")
        .got(text(file, ": ", log.last().data()));
  }
  registered.emplace(handle_, file);
}

}  // namespace page4d
