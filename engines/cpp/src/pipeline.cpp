#include "page4d/pipeline.h"

#include "boundary.h"
#include "checksum/checksum_engine.h"
#include "log.h"
#include "manifest/engine_folder.h"
#include "onnxruntime/onnxruntime_loader.h"
#include "runtime/host_device.h"
#include "runtime/window.h"
#include "tensorrt/tensorrt_loader.h"
#include "text.h"

namespace page4d {
namespace {

// The plans, where they run on this machine; null otherwise, with the reason.
std::unique_ptr<EngineLoader> runnable_plans(const EngineFolder& folder, const Options& options, std::string& reason) {
  try {
    return tensorrt_loader(folder, options);
  } catch (const Error& error) {
    reason = error.reason();
    return nullptr;
  }
}

// ONNX Runtime, after the hashes of its files, which EngineFolder::open checks for Files::kAll alone.
std::unique_ptr<EngineLoader> cpu_loader(EngineFolder& folder, const Options& options) {
  auto loader = onnxruntime_loader(folder, options);
  if (options.files == Files::kUsed) folder.check(onnxruntime_files(folder.manifest));
  return loader;
}

// reason: why kAuto does not take the folder's plans; empty where it does, or there are none.
std::unique_ptr<EngineLoader> loader_of(EngineFolder& folder, const Options& options, std::string& reason) {
  switch (options.backend) {
    case Backend::kTest:
      return checksum_loader();
    case Backend::kTensorrt:
      return tensorrt_loader(folder, options);
    case Backend::kOnnxruntime:
      return cpu_loader(folder, options);
    case Backend::kAuto:
      break;
  }
  if (!folder.manifest.plans) return cpu_loader(folder, options);
  if (auto loader = runnable_plans(folder, options, reason)) return loader;
  try {
    return cpu_loader(folder, options);
  } catch (Error& error) {
    error.got("not on TensorRT: " + reason);
    throw;
  }
}

// Options of another backend than the one that is asked for, a line each.
std::vector<std::string> without_effect(const Options& options) {
  const bool may_be_tensorrt = options.backend == Backend::kAuto || options.backend == Backend::kTensorrt;
  const bool may_be_onnxruntime = options.backend == Backend::kAuto || options.backend == Backend::kOnnxruntime;
  const std::pair<bool, const char*> given[] = {
      {!may_be_tensorrt && !options.tensorrt_library.empty(), "tensorrt_library"},
      {!may_be_tensorrt && !options.plugin_library.empty(), "plugin_library"},
      {!may_be_tensorrt && options.load_folder_plugins, "load_folder_plugins"},
      {!may_be_onnxruntime && !options.onnxruntime_library.empty(), "onnxruntime_library"},
      {!may_be_onnxruntime && options.threads != 0, "threads"},
  };
  std::vector<std::string> lines;
  for (const auto& [is_idle, name] : given)
    if (is_idle) lines.push_back(text("Options::", name, " has no effect: it is another backend's"));
  return lines;
}

}  // namespace

class Pipeline::Impl {
 public:
  Impl(const std::string& path, const Options& options, std::shared_ptr<const Log> log)
      : log_(std::move(log)),
        folder_(EngineFolder::open(path, options.files)),
        loader_(loader_of(folder_, options, reason_)),
        described_(loader_->described()) {
    warnings_ = without_effect(options);
    for (std::string& line : loader_->warnings()) warnings_.push_back(std::move(line));
    if (!reason_.empty()) warnings_.push_back("not on TensorRT: " + reason_);
    if (dynamic_cast<HostDevice*>(&loader_->device()) != nullptr && options.backend != Backend::kTest)
      folder_.manifest = widened(folder_.manifest);
    const Entered entered(loader_->device());  // also while an exception destroys engines
    entered.check();
    window_ = std::make_unique<WindowRunner>(folder_.manifest, *loader_, read_constants(folder_), options);
    if (!window_->no_graph().empty())
      warnings_.push_back("no CUDA graph, the calls are launched one by one: " + window_->no_graph());
    log_->write(LogLevel::kInfo, text(path, ": ", described_).c_str());
    for (const std::string& line : warnings_) log_->write(LogLevel::kWarning, line.c_str());
  }

  ~Impl() {
    const LogScope scope(*log_);
    {
      const Entered entered(loader_->device());
      window_.reset();
    }
    loader_.reset();
  }

  const Log& log() const { return *log_; }

  WindowRunner& window() { return *window_; }
  const std::string& described() const { return described_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  std::shared_ptr<const Log> log_;  // first: the others write to it until they are destroyed
  EngineFolder folder_;
  std::string reason_;  // as of loader_of
  std::unique_ptr<EngineLoader> loader_;
  std::string described_;
  std::vector<std::string> warnings_;
  std::unique_ptr<WindowRunner> window_;  // destroyed before the loader, which its engines use
};

Pipeline Pipeline::load(const std::string& folder, const Options& options) {
  return only_errors([&] {
    const auto log = std::make_shared<const Log>(options.log);
    const LogScope scope(*log);
    return Pipeline(std::make_unique<Impl>(folder, options, log));
  });
}

Pipeline::Pipeline(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pipeline::Pipeline(Pipeline&&) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&&) noexcept = default;
Pipeline::~Pipeline() = default;

const EngineInfo& Pipeline::info() const noexcept { return impl_->window().info(); }
const std::string& Pipeline::described() const noexcept { return impl_->described(); }
bool Pipeline::slides() const noexcept { return impl_->window().slides(); }
const std::vector<std::string>& Pipeline::warnings() const noexcept { return impl_->warnings(); }
Status Pipeline::run(const Frames& frames, const Outputs& outputs, void* stream) noexcept {
  const LogScope scope(impl_->log());
  return impl_->window().run(frames, outputs, stream);
}
const StageTime* Pipeline::times() noexcept {
  const LogScope scope(impl_->log());
  return impl_->window().times();
}

}  // namespace page4d
