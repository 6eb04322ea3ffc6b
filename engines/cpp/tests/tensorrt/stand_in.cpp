// A stand-in for TensorRT's library: its interfaces, with the test backend's checksums behind them. Its plans are text:
//   plan
//   in|out <name> <type> <size> <size> ..        one line per tensor, the type as a number of nvinfer1::DataType
//   fails <number> <message>                     calls after the first <number> are refused with that message
//   warns <message>                              loading warns, on this thread and on one of its own
#include <dlfcn.h>

#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "checksum/checksum_engine.h"
#include "stubs.h"

namespace {

constexpr int64_t kScratch = 4096;

struct Tensor {
  bool is_input;
  std::string name;
  page4d::TensorSpec spec;
  DataType type;
};

page4d::DType type_of(DataType type) {
  switch (type) {
    case DataType::kHALF:
      return page4d::DType::kFloat16;
    case DataType::kBF16:
      return page4d::DType::kBfloat16;
    case DataType::kUINT8:
      return page4d::DType::kUint8;
    case DataType::kINT32:
      return page4d::DType::kInt32;
    default:
      return page4d::DType::kFloat32;
  }
}

bool has_runtime = true;

// Objects on a GPU must be destroyed while a context is current.
struct OnDevice {
  ~OnDevice() {
    static const auto contexts =
        reinterpret_cast<long (*)()>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "driver_contexts"));
    if (contexts() < 1) std::abort();
  }
};

struct Refusal {
  int after = -1;
  std::string message;
};

// Calls a function in the stream's order, by the driver that the process has loaded.
bool put_on(cudaStream_t stream, void (*function)(void*), void* data) {
  static const auto launch = reinterpret_cast<int (*)(void*, void (*)(void*), void*)>(
      dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuLaunchHostFunc"));
  return launch(stream, function, data) == 0;
}

class Context final : VExecutionContextStub, public IExecutionContext, OnDevice {
 public:
  Context(const std::vector<Tensor>& tensors, Refusal refusal, ILogger* logger)
      : tensors_(tensors), refusal_(std::move(refusal)), logger_(logger) {
    IExecutionContext::mImpl = this;
    for (const Tensor& tensor : tensors) (tensor.is_input ? stage_.inputs : stage_.outputs).push_back(tensor.spec);
  }

  IExecutionContext* getPImpl() noexcept override { return this; }
  bool setTensorAddress(const char* name, void* address) noexcept override {
    for (const Tensor& tensor : tensors_) {
      if (tensor.name == name) return addresses_[name] = address, true;
    }
    return false;
  }
  void setDeviceMemoryV2(void* memory, int64_t size) noexcept override {
    if (memory == nullptr || size != kScratch) std::abort();
    has_scratch_ = true;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (!has_scratch_) return false;
    if (refusal_.after == 0) return logger_->log(ILogger::Severity::kERROR, refusal_.message.c_str()), false;
    if (refusal_.after > 0) --refusal_.after;
    if (checksum_ == nullptr) {
      std::vector<page4d::Address> inputs, outputs;
      for (const Tensor& tensor : tensors_)
        (tensor.is_input ? inputs : outputs).emplace_back(tensor.name, addresses_.at(tensor.name));
      checksum_ = std::make_unique<page4d::Checksum>(stage_, inputs, outputs);
    }
    return put_on(
        stream, [](void* checksum) { static_cast<const page4d::Checksum*>(checksum)->compute(); }, checksum_.get());
  }

 private:
  const std::vector<Tensor>& tensors_;
  Refusal refusal_;
  ILogger* logger_;
  page4d::Stage stage_;
  std::map<std::string, void*> addresses_;
  bool has_scratch_ = false;
  std::unique_ptr<page4d::Checksum> checksum_;
};

class Engine final : VCudaEngineStub, public ICudaEngine, OnDevice {
 public:
  Engine(std::vector<Tensor> tensors, Refusal refusal, ILogger* logger)
      : tensors_(std::move(tensors)), refusal_(std::move(refusal)), logger_(logger) {
    ICudaEngine::mImpl = this;
  }

  ICudaEngine* getPImpl() noexcept override { return this; }
  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(tensors_.size()); }
  const char* getIOTensorName(int32_t index) const noexcept override {
    return tensors_[static_cast<size_t>(index)].name.c_str();
  }
  Dims getTensorShape(const char* name) const noexcept override {
    Dims dims{};
    for (const Tensor& tensor : tensors_) {
      if (tensor.name != name) continue;
      for (int64_t size : tensor.spec.shape) dims.d[dims.nbDims++] = size;
    }
    return dims;
  }
  DataType getTensorDataType(const char* name) const noexcept override {
    for (const Tensor& tensor : tensors_) {
      if (tensor.name == name) return tensor.type;
    }
    return DataType::kFLOAT;
  }
  int64_t getDeviceMemorySizeV2() const noexcept override { return kScratch; }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
    return strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED ? new Context(tensors_, refusal_, logger_)
                                                                         : nullptr;
  }

 private:
  std::vector<Tensor> tensors_;
  Refusal refusal_;
  ILogger* logger_;
};

class Runtime final : VRuntimeStub, public IRuntime, OnDevice {
 public:
  explicit Runtime(ILogger* logger) : logger_(logger) { IRuntime::mImpl = this; }

  using VRuntimeStub::deserializeCudaEngine;
  IRuntime* getPImpl() noexcept override { return this; }
  ICudaEngine* deserializeCudaEngine(const void* content, size_t size) noexcept override {
    std::istringstream lines(std::string(static_cast<const char*>(content), size));
    std::string line;
    if (!std::getline(lines, line) || line != "plan")
      return logger_->log(ILogger::Severity::kERROR, "this is no plan"), nullptr;
    std::vector<Tensor> tensors;
    Refusal refusal;
    while (std::getline(lines, line)) {
      std::istringstream fields(line);
      std::string way;
      int type = 0;
      Tensor tensor{};
      fields >> way;
      if (way == "fails") {
        fields >> refusal.after >> refusal.message;
        continue;
      }
      if (way == "warns") {
        std::string message;
        fields >> message;
        logger_->log(ILogger::Severity::kVERBOSE, "not for a log");
        logger_->log(ILogger::Severity::kWARNING, message.c_str());
        std::thread([&] { logger_->log(ILogger::Severity::kINFO, message.c_str()); }).join();
        continue;
      }
      fields >> tensor.name >> type;
      tensor.is_input = way == "in";
      tensor.type = static_cast<DataType>(type);
      tensor.spec.name = tensor.name;
      tensor.spec.dtype = type_of(tensor.type);
      for (int64_t side = 0; fields >> side;) tensor.spec.shape.push_back(side);
      tensors.push_back(std::move(tensor));
    }
    return new Engine(std::move(tensors), refusal, logger_);
  }

 private:
  ILogger* logger_;
};

}  // namespace

#define PAGE4D_EXPORT extern "C" __attribute__((visibility("default")))

// For tests: whether a runtime can be made.
PAGE4D_EXPORT void stand_in_runtime(bool is_possible) noexcept { has_runtime = is_possible; }

PAGE4D_EXPORT void* createInferRuntime_INTERNAL(void* handle, int32_t) noexcept {
  auto* logger = static_cast<ILogger*>(handle);
  if (!has_runtime) return logger->log(ILogger::Severity::kERROR, "the driver is too old"), nullptr;
  return static_cast<IRuntime*>(new Runtime(logger));
}
PAGE4D_EXPORT int32_t getInferLibVersion() noexcept { return PAGE4D_STAND_IN_VERSION; }
PAGE4D_EXPORT nvinfer1::IPluginRegistry* getPluginRegistry() noexcept { return nullptr; }
