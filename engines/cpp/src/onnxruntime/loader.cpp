#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>

#include "onnxruntime/library.h"
#include "onnxruntime/onnxruntime_loader.h"
#include "runtime/host_device.h"
#include "text.h"

namespace page4d {
namespace {

constexpr char kAgain[] = "page4d-export again";

// CPUs that this process may use.
int available_threads() {
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? std::max(1, CPU_COUNT(&cpus)) : 1;
}

// Whether this CPU has exact products of unsigned by signed bytes, as Linux names them; false where it does not say.
bool multiplies_signed() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;)
      if (word == "avx512_vnni" || word == "avx_vnni" || word == "amx_int8") return true;
    return false;
  }
  return false;
}

const std::string& graph_of(const Stage& stage) {
  static const bool is_signed = multiplies_signed();
  return is_signed && !stage.cpu_signed.empty() ? stage.cpu_signed : stage.cpu;
}

ONNXTensorElementDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case DType::kInt32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
}

class OrtCall final : public BoundCall {
 public:
  OrtCall(const OrtApi& api, OrtSession* session, OrtOwned<OrtIoBinding> binding)
      : api_(api), session_(session), binding_(std::move(binding)) {}

  Failure launch(Stream) noexcept override {
    OrtStatus* status = api_.RunWithBinding(session_, nullptr, binding_.get());
    if (status == nullptr) return nullptr;
    std::snprintf(message_, sizeof message_, "%s", api_.GetErrorMessage(status));
    api_.ReleaseStatus(status);
    return message_;
  }

 private:
  const OrtApi& api_;
  OrtSession* session_;
  OrtOwned<OrtIoBinding> binding_;
  char message_[512] = "";
};

class OrtEngine final : public Engine {
 public:
  OrtEngine(const OrtLibrary& library, const Stage& stage, const OrtSessionOptions* options, const std::string& file)
      : library_(library), api_(library.api()), stage_(stage), session_(nullptr, {api_.ReleaseSession}) {
    OrtSession* session = nullptr;
    library.check(api_.CreateSession(library.environment(), file.c_str(), options, &session),
                  graph_of(stage) + " cannot be loaded");
    session_.reset(session);
  }

  size_t scratch() const override { return 0; }

  std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                  void*) override {
    OrtIoBinding* made = nullptr;
    check(api_.CreateIoBinding(session_.get(), &made));
    OrtOwned<OrtIoBinding> binding(made, {api_.ReleaseIoBinding});
    size_t counts[2] = {};
    check(api_.SessionGetInputCount(session_.get(), &counts[0]));
    check(api_.SessionGetOutputCount(session_.get(), &counts[1]));
    if (counts[0] != inputs.size() || counts[1] != outputs.size()) throw other("tensors");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OrtOwned<OrtValue> value = tensor(i, true, stage_.inputs, inputs);
      check(api_.BindInput(made, name_of(i, true).c_str(), value.get()));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const OrtOwned<OrtValue> value = tensor(i, false, stage_.outputs, outputs);
      check(api_.BindOutput(made, name_of(i, false).c_str(), value.get()));
    }
    return std::make_unique<OrtCall>(api_, session_.get(), std::move(binding));
  }

 private:
  void check(OrtStatus* status) const { library_.check(status, graph_of(stage_) + " cannot be used"); }

  Error other(const std::string& what) const {
    return Error(Code::kIncompatible, text(graph_of(stage_), " has other ", what, " than the manifest says"))
        .hint(kAgain);
  }

  std::string name_of(size_t number, bool is_input) const {
    OrtAllocator* allocator = nullptr;
    check(api_.GetAllocatorWithDefaultOptions(&allocator));
    char* made = nullptr;
    const auto get = is_input ? api_.SessionGetInputName : api_.SessionGetOutputName;
    check(get(session_.get(), number, allocator, &made));
    const std::string name = made;
    check(api_.AllocatorFree(allocator, made));
    return name;
  }

  // The session's input or output of this number, over its address. Its shape may be a view of the stage's.
  OrtOwned<OrtValue> tensor(size_t number, bool is_input, const std::vector<TensorSpec>& specs,
                            const std::vector<Address>& addresses) const {
    const std::string name = name_of(number, is_input);
    const auto spec =
        std::find_if(specs.begin(), specs.end(), [&](const TensorSpec& each) { return each.binding() == name; });
    const auto address =
        std::find_if(addresses.begin(), addresses.end(), [&](const Address& each) { return each.first == name; });
    if (spec == specs.end() || address == addresses.end()) throw other("tensors");
    OrtTypeInfo* made = nullptr;
    const auto get = is_input ? api_.SessionGetInputTypeInfo : api_.SessionGetOutputTypeInfo;
    check(get(session_.get(), number, &made));
    const OrtOwned<OrtTypeInfo> info(made, {api_.ReleaseTypeInfo});
    const OrtTensorTypeAndShapeInfo* described = nullptr;
    check(api_.CastTypeInfoToTensorInfo(made, &described));
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    if (described == nullptr) throw other("types");
    check(api_.GetTensorElementType(described, &type));
    check(api_.GetDimensionsCount(described, &rank));
    std::vector<int64_t> shape(rank);
    check(api_.GetDimensions(described, shape.data(), rank));
    int64_t count = 1;
    for (int64_t side : shape) {
      if (side < 1 || side > spec->count()) throw other("shapes");
      count *= side;
      if (count > spec->count()) throw other("shapes");
    }
    if (count != spec->count() || type != type_of(spec->dtype)) throw other("types or shapes");
    OrtMemoryInfo* memory = nullptr;
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    const OrtOwned<OrtMemoryInfo> on_host(memory, {api_.ReleaseMemoryInfo});
    OrtValue* value = nullptr;
    const size_t bytes = static_cast<size_t>(count) * bytes_of(spec->dtype);
    check(api_.CreateTensorWithDataAsOrtValue(memory, address->second, bytes, shape.data(), rank, type, &value));
    return OrtOwned<OrtValue>(value, {api_.ReleaseValue});
  }

  const OrtLibrary& library_;
  const OrtApi& api_;
  const Stage& stage_;
  OrtOwned<OrtSession> session_;
};

class OrtLoader final : public EngineLoader {
 public:
  OrtLoader(const EngineFolder& folder, const Options& options)
      : folder_(folder),
        library_(
            OrtLibrary::open(options.onnxruntime_library, options.threads > 0 ? options.threads : available_threads())),
        options_(nullptr, {library_.api().ReleaseSessionOptions}) {
    const OrtApi& api = library_.api();
    OrtSessionOptions* made = nullptr;
    check(api.CreateSessionOptions(&made));
    options_.reset(made);
    check(api.DisablePerSessionThreads(made));
    for (const char* key :
         {"session.force_spinning_stop",  // threads that wait for the next stage by spinning take this one's time
          "session.use_env_allocators",
          "session.disable_quant_qdq"})  // 8-bit weights of layers that compute in float32 are widened once
      check(api.AddSessionConfigEntry(made, key, "1"));
  }

  std::string described() const override {
    const char* wide = folder_.manifest.dtype() == DType::kFloat32 ? "" : ", computing in float32";
    const int threads = library_.threads();
    return text("ONNX Runtime ", library_.version(), " on the CPU, ", threads, threads == 1 ? " thread" : " threads",
                wide);
  }
  Device& device() override { return device_; }

  std::unique_ptr<Engine> load(const Stage& stage) override {
    return std::make_unique<OrtEngine>(library_, stage, options_.get(), folder_.file(graph_of(stage)));
  }

 private:
  void check(OrtStatus* status) const { library_.check(status, "ONNX Runtime refuses its options", Code::kFailure); }

  const EngineFolder& folder_;
  const OrtLibrary& library_;
  OrtOwned<OrtSessionOptions> options_;
  HostDevice device_;
};

}  // namespace

std::unique_ptr<EngineLoader> onnxruntime_loader(const EngineFolder& folder, const Options& options) {
  for (const Stage& stage : folder.manifest.stages) {
    if (!stage.cpu.empty()) continue;
    throw Error(Code::kIncompatible, "the engine folder has no graphs for ONNX Runtime on a CPU")
        .got(text(folder.path, ", exported by page4d ", folder.manifest.page4d))
        .hint(kAgain);
  }
  return std::make_unique<OrtLoader>(folder, options);
}

std::vector<std::string> onnxruntime_files(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const Stage& stage : manifest.stages) {
    names.push_back(graph_of(stage));
    const std::string weights = stage.file.value_or("") + ".data";
    if (manifest.files.count(weights) != 0) names.push_back(weights);
  }
  return names;
}

Manifest widened(Manifest manifest) {
  const auto widen = [](std::vector<TensorSpec>& specs) {
    for (TensorSpec& spec : specs)
      if (spec.dtype == DType::kFloat16 || spec.dtype == DType::kBfloat16) spec.dtype = DType::kFloat32;
  };
  for (Stage& stage : manifest.stages) widen(stage.inputs), widen(stage.outputs);
  if (manifest.dtype() != DType::kFloat32) manifest.precision = "float32";
  return manifest;
}

}  // namespace page4d
