#include <algorithm>
#include <vector>

#include "cuda/cuda_device.h"
#include "files/files.h"
#include "page4d/error.h"
#include "tensorrt/library.h"
#include "tensorrt/plugins.h"
#include "tensorrt/requirements.h"
#include "tensorrt/tensorrt_loader.h"
#include "text.h"

namespace page4d {
namespace {

nvinfer1::DataType type_of(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
      return nvinfer1::DataType::kUINT8;
    case DType::kInt32:
      return nvinfer1::DataType::kINT32;
    case DType::kFloat16:
      return nvinfer1::DataType::kHALF;
    case DType::kBfloat16:
      return nvinfer1::DataType::kBF16;
    default:
      return nvinfer1::DataType::kFLOAT;
  }
}

class TensorrtCall final : public BoundCall {
 public:
  explicit TensorrtCall(std::unique_ptr<nvinfer1::IExecutionContext> context) : context_(std::move(context)) {}

  Failure launch(Stream stream) noexcept override {
    TensorrtLog::get().begin();
    if (context_->enqueueV3(static_cast<cudaStream_t>(stream))) return nullptr;
    failure_ = TensorrtLog::get().last();
    return failure_.data();
  }

 private:
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  TensorrtLog::Text failure_{};
};

class TensorrtEngine final : public Engine {
 public:
  TensorrtEngine(const Stage& stage, std::unique_ptr<nvinfer1::ICudaEngine> engine)
      : stage_(stage), engine_(std::move(engine)) {
    for (const auto* specs : {&stage.inputs, &stage.outputs}) {
      for (const TensorSpec& spec : *specs) check(spec);
    }
  }

  size_t scratch() const override { return static_cast<size_t>(engine_->getDeviceMemorySizeV2()); }

  std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                  void* scratch_memory) override {
    TensorrtLog& log = TensorrtLog::get();
    log.begin();
    std::unique_ptr<nvinfer1::IExecutionContext> context(
        engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (context == nullptr)
      throw Error(Code::kIncompatible, "TensorRT makes no context for " + stage_.name).got(log.last().data());
    if (scratch() != 0) context->setDeviceMemoryV2(scratch_memory, static_cast<int64_t>(scratch()));
    for (const auto* addresses : {&inputs, &outputs}) {
      for (const auto& [name, address] : *addresses) {
        if (context->setTensorAddress(name.c_str(), address)) continue;
        throw Error(Code::kIncompatible, text("the plan of ", stage_.name, " takes no address for ", name))
            .got(log.last().data());
      }
    }
    return std::make_unique<TensorrtCall>(std::move(context));
  }

 private:
  void check(const TensorSpec& spec) const {
    std::vector<std::string> names;
    bool known = false;
    for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
      names.emplace_back(engine_->getIOTensorName(i));
      known = known || names.back() == spec.binding();
    }
    if (!known) {
      throw Error(Code::kIncompatible, text("the plan of ", stage_.name, " has no tensor ", spec.binding()))
          .got(joined(names))
          .hint("page4d-export --build-only ENGINES");
    }
    const nvinfer1::Dims dims = engine_->getTensorShape(spec.binding().c_str());
    const std::vector<int64_t> shape(dims.d, dims.d + std::max(dims.nbDims, 0));
    const nvinfer1::DataType type = engine_->getTensorDataType(spec.binding().c_str());
    if (shape == spec.shape && type == type_of(spec.dtype)) return;
    throw Error(Code::kIncompatible,
                text("the plan of ", stage_.name, " has another ", spec.binding(), " than the manifest"))
        .got(text("type ", static_cast<int>(type), " ", text_of(shape)))
        .allowed(text(name_of(spec.dtype), " ", text_of(spec.shape)));
  }

  const Stage& stage_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
};

class TensorrtLoader final : public EngineLoader {
 public:
  TensorrtLoader(const EngineFolder& folder, const Options& options)
      : folder_(folder),
        plans_(plans_of(folder.manifest, folder.path)),
        device_(options.device),
        library_(plans_.library, options.tensorrt_library) {
    Machine machine{library_.name(), library_.version(), device_.capability(), ""};
    PluginLibrary plugins;
    if (plans_.kernels) {
      plugins = PluginLibrary::find(folder, options.plugin_library, options.load_folder_plugins);
      machine.kernels = plugins.kernels;
    }
    require(plans_, machine, folder.path);
    if (plans_.kernels) library_.register_plugins(plugins.file);
    const Entered entered(device_);
    entered.check();
    runtime_ = library_.runtime();
  }

  ~TensorrtLoader() override {
    const Entered entered(device_);
    runtime_.reset();
  }

  std::string described() const override {
    return text(library_.name(), " ", library_.version(), " on ", device_.name());
  }
  Device& device() override { return device_; }

  std::unique_ptr<Engine> load(const Stage& stage) override {
    const std::string& name = plans_.files.at(stage.name);
    const std::optional<std::string> content = read_file(folder_.file(name));
    if (!content) throw Error(Code::kFailure, name + " cannot be read").got(folder_.path);
    TensorrtLog& log = TensorrtLog::get();
    log.begin();
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime_->deserializeCudaEngine(content->data(), content->size()));
    if (engine == nullptr) {
      throw Error(Code::kIncompatible, text(library_.name(), " ", library_.version(), " does not load ", name))
          .got(log.last().data())
          .hint("page4d-export --build-only ENGINES");
    }
    return std::make_unique<TensorrtEngine>(stage, std::move(engine));
  }

 private:
  const EngineFolder& folder_;
  const Plans& plans_;
  CudaDevice device_;
  TensorrtLibrary library_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
};

}  // namespace

std::unique_ptr<EngineLoader> tensorrt_loader(const EngineFolder& folder, const Options& options) {
  return std::make_unique<TensorrtLoader>(folder, options);
}

}  // namespace page4d
