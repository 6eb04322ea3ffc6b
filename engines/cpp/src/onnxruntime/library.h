// ONNX Runtime's library, opened when engines are loaded, behind its C interface.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "page4d/error.h"

namespace page4d {

// A process has one: ONNX Runtime keeps its environment, its threads and its memory for all sessions.
class OrtLibrary {
 public:
  // file: as for dlopen; empty: libonnxruntime.so where the loader finds it, then that of a Python environment.
  // threads: of all sessions together, at least 1. The first call that does not throw decides both.
  // Throws Error kMissingBackend: there is none, or it is older than the C interface that this build is made for.
  static const OrtLibrary& open(const std::string& file, int threads);

  const OrtApi& api() const { return *api_; }
  const std::string& version() const { return version_; }
  const OrtEnv* environment() const { return environment_; }
  int threads() const { return threads_; }
  // As it was opened: a path, or a name that the loader finds.
  const std::string& file() const { return file_; }
  // Whether `file`, as for dlopen, is this library.
  bool is(const std::string& file) const;

  // Throws Error if a call failed: kOutOfMemory where the reason is that, else `code`. what: the error's first line.
  void check(OrtStatus* status, const std::string& what, Code code = Code::kIncompatible) const;

 private:
  OrtLibrary(const std::string& file, int threads);

  void* handle_ = nullptr;
  const OrtApi* api_ = nullptr;
  std::string file_, version_;
  OrtEnv* environment_ = nullptr;
  int threads_;
};

// Releases an object of ONNX Runtime.
template <class T>
struct OrtRelease {
  void(ORT_API_CALL* release)(T*);
  void operator()(T* object) const { release(object); }
};
template <class T>
using OrtOwned = std::unique_ptr<T, OrtRelease<T>>;

}  // namespace page4d
