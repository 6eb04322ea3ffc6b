#include "onnxruntime/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <vector>

#include "log.h"
#include "text.h"

namespace page4d {
namespace {

namespace fs = std::filesystem;

// The libraries of Python environments: the wheel of ONNX Runtime holds one. The environment that is active comes
// first.
std::vector<std::string> python_libraries() {
  std::vector<fs::path> roots;
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char* root = std::getenv(variable)) roots.push_back(fs::path(root) / "lib");
  if (const char* home = std::getenv("HOME")) roots.push_back(fs::path(home) / ".local" / "lib");
  roots.insert(roots.end(), {"/usr/local/lib", "/usr/lib"});
  std::vector<std::string> files;
  std::error_code ignored;
  for (const fs::path& root : roots) {
    std::vector<std::string> of_root;
    for (const fs::directory_entry& python : fs::directory_iterator(root, ignored)) {
      if (python.path().filename().string().rfind("python3", 0) != 0) continue;
      for (const char* packages : {"site-packages", "dist-packages"}) {
        const fs::path folder = python.path() / packages / "onnxruntime" / "capi";
        for (const fs::directory_entry& file : fs::directory_iterator(folder, ignored))
          if (file.path().filename().string().rfind("libonnxruntime.so", 0) == 0) of_root.push_back(file.path());
      }
    }
    std::sort(of_root.rbegin(), of_root.rend());
    files.insert(files.end(), of_root.begin(), of_root.end());
  }
  return files;
}

void ORT_API_CALL log_message(void*, OrtLoggingLevel severity, const char*, const char*, const char* place,
                              const char* message) noexcept {
  char line[2048];
  std::snprintf(line, sizeof line, "ONNX Runtime: %s (%s)", message, place);
  write_to_logs(severity >= ORT_LOGGING_LEVEL_ERROR     ? LogLevel::kError
                : severity == ORT_LOGGING_LEVEL_WARNING ? LogLevel::kWarning
                                                        : LogLevel::kInfo,
                line);
}

struct CloseLibrary {
  void operator()(void* handle) const { dlclose(handle); }
};
using OpenLibrary = std::unique_ptr<void, CloseLibrary>;

// The first file that opens, whose name is put into `opened`. Throws Error with the reason of the first.
OpenLibrary open_first(const std::vector<std::string>& files, std::string& opened) {
  std::string reason;
  for (const std::string& file : files) {
    OpenLibrary library(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (library != nullptr) {
      opened = file;
      return library;
    }
    if (reason.empty()) reason = dlerror();
  }
  throw Error(Code::kMissingBackend, "ONNX Runtime is not installed")
      .got(reason)
      .allowed(joined(files))
      .hint("pip install onnxruntime in an active environment, LD_LIBRARY_PATH, or Options::onnxruntime_library");
}

}  // namespace

const OrtLibrary& OrtLibrary::open(const std::string& file, int threads) {
  static std::mutex mutex;
  static const OrtLibrary* library = nullptr;  // never freed: threads of ONNX Runtime outlive every pipeline
  const std::lock_guard lock(mutex);
  if (library == nullptr) library = new OrtLibrary(file, threads);
  return *library;
}

OrtLibrary::OrtLibrary(const std::string& file, int threads) : threads_(threads) {
  std::vector<std::string> files{file};
  if (file.empty()) {
    files = {"libonnxruntime.so.1", "libonnxruntime.so"};
    const std::vector<std::string> more = python_libraries();
    files.insert(files.end(), more.begin(), more.end());
  }
  OpenLibrary library = open_first(files, file_);
  const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library.get(), "OrtGetApiBase"));
  if (base == nullptr) {
    throw Error(Code::kMissingBackend, "a library is not ONNX Runtime")
        .got(text(file_, ", without the symbol OrtGetApiBase"))
        .hint("Options::onnxruntime_library: the path of a libonnxruntime.so");
  }
  version_ = base()->GetVersionString();
  api_ = base()->GetApi(ORT_API_VERSION);
  if (api_ == nullptr) {
    throw Error(Code::kMissingBackend, "ONNX Runtime is too old")
        .got(text(version_, ", ", file_))
        .allowed(text("1.", ORT_API_VERSION, " and newer"))
        .hint("pip install --upgrade onnxruntime, or Options::onnxruntime_library");
  }
  const std::string what = "ONNX Runtime does not start";
  OrtThreadingOptions* threading = nullptr;
  check(api_->CreateThreadingOptions(&threading), what, Code::kMissingBackend);
  const OrtOwned<OrtThreadingOptions> owned_threading(threading, {api_->ReleaseThreadingOptions});
  check(api_->SetGlobalIntraOpNumThreads(threading, threads), what, Code::kMissingBackend);
  check(api_->SetGlobalInterOpNumThreads(threading, 1), what, Code::kMissingBackend);
  handle_ = library.release();  // stays open from here on, also after an error: threads may run its code
  OrtEnv* environment = nullptr;
  check(api_->CreateEnvWithCustomLoggerAndGlobalThreadPools(log_message, nullptr, ORT_LOGGING_LEVEL_WARNING, "page4d",
                                                            threading, &environment),
        what, Code::kMissingBackend);
  OrtOwned<OrtEnv> owned_environment(environment, {api_->ReleaseEnv});
  check(api_->DisableTelemetryEvents(environment), what, Code::kMissingBackend);
  // one arena for all stages: they run one after the other, and otherwise each would keep its own
  OrtMemoryInfo* memory = nullptr;
  check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), what, Code::kMissingBackend);
  const OrtOwned<OrtMemoryInfo> owned_memory(memory, {api_->ReleaseMemoryInfo});
  check(api_->CreateAndRegisterAllocator(environment, memory, nullptr), what, Code::kMissingBackend);
  environment_ = owned_environment.release();
}

bool OrtLibrary::is(const std::string& file) const {
  const OpenLibrary other(dlopen(file.c_str(), RTLD_NOW | RTLD_NOLOAD));
  return other.get() == handle_;
}

void OrtLibrary::check(OrtStatus* status, const std::string& what, Code code) const {
  if (status == nullptr) return;
  const std::string message = api_->GetErrorMessage(status);
  api_->ReleaseStatus(status);
  for (const char* sign : {"allocate memory", "bad_alloc", "bad allocation"}) {
    if (message.find(sign) == std::string::npos) continue;
    throw Error(Code::kOutOfMemory, what + ": out of memory")
        .got(message)
        .hint("page4d-export with a smaller --T, --V, --height or --width");
  }
  throw Error(code, what).got(text("ONNX Runtime ", version_, ": ", message));
}

}  // namespace page4d
