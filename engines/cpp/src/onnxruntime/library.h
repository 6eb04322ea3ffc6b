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
  // threads: of all sessions together; the first call decides.
  // Throws Error kMissingBackend: there is none, or it is older than its C interface of this build.
  static const OrtLibrary& open(const std::string& file, int threads);

  const OrtApi& api() const { return *api_; }
  const std::string& version() const { return version_; }
  const OrtEnv* environment() const { return environment_; }
  int threads() const { return threads_; }

  // Throws Error kOutOfMemory, or the code given, if a call failed; what: of the error.
  void check(OrtStatus* status, const std::string& what, Code code = Code::kIncompatible) const;

 private:
  OrtLibrary(const std::string& file, int threads);

  const OrtApi* api_ = nullptr;
  std::string version_;
  OrtEnv* environment_ = nullptr;
  int threads_;
};

// Releases what ONNX Runtime made.
template <class T>
struct OrtRelease {
  void(ORT_API_CALL* release)(T*);
  void operator()(T* made) const { release(made); }
};
template <class T>
using OrtOwned = std::unique_ptr<T, OrtRelease<T>>;

}  // namespace page4d
