#include "page4d/pipeline.h"

#include "boundary.h"
#include "checksum/checksum_engine.h"
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

}  // namespace

class Pipeline::Impl {
 public:
  Impl(const std::string& path, const Options& options)
      : folder_(EngineFolder::open(path, options.files)),
        loader_(loader_of(folder_, options, reason_)),
        described_(loader_->described()) {
    warnings_ = loader_->warnings();
    if (!reason_.empty()) warnings_.push_back("not on TensorRT: " + reason_);
    if (dynamic_cast<HostDevice*>(&loader_->device()) != nullptr && options.backend != Backend::kTest)
      folder_.manifest = widened(folder_.manifest);
    const Entered entered(loader_->device());  // also while an exception destroys engines
    entered.check();
    window_ = std::make_unique<WindowRunner>(folder_.manifest, *loader_, read_constants(folder_), options);
    if (!window_->no_graph().empty())
      warnings_.push_back("no CUDA graph, the calls are launched one by one: " + window_->no_graph());
  }

  ~Impl() {
    const Entered entered(loader_->device());
    window_.reset();
  }

  WindowRunner& window() { return *window_; }
  const std::string& described() const { return described_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  EngineFolder folder_;
  std::string reason_;  // as of loader_of
  std::unique_ptr<EngineLoader> loader_;
  std::string described_;
  std::vector<std::string> warnings_;
  std::unique_ptr<WindowRunner> window_;  // destroyed before the loader, which its engines use
};

Pipeline Pipeline::load(const std::string& folder, const Options& options) {
  return only_errors([&] { return Pipeline(std::make_unique<Impl>(folder, options)); });
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
  return impl_->window().run(frames, outputs, stream);
}
const StageTime* Pipeline::times() noexcept { return impl_->window().times(); }

}  // namespace page4d
