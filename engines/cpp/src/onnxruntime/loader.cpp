#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

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
    std::istringstream flags(line.substr(line.find(':') + 1));
    for (std::string flag; flags >> flag;)
      if (flag == "avx512_vnni" || flag == "avx_vnni" || flag == "amx_int8") return true;
    return false;
  }
  return false;
}

// The file of the stage's graph for this CPU.
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
    OrtIoBinding* binding = nullptr;
    check(api_.CreateIoBinding(session_.get(), &binding));
    OrtOwned<OrtIoBinding> owned(binding, {api_.ReleaseIoBinding});
    size_t input_count = 0, output_count = 0;
    check(api_.SessionGetInputCount(session_.get(), &input_count));
    check(api_.SessionGetOutputCount(session_.get(), &output_count));
    if (input_count != inputs.size() || output_count != outputs.size()) throw other("tensors");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OrtOwned<OrtValue> value = tensor(i, true, stage_.inputs, inputs);
      check(api_.BindInput(binding, name_of(i, true).c_str(), value.get()));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const OrtOwned<OrtValue> value = tensor(i, false, stage_.outputs, outputs);
      check(api_.BindOutput(binding, name_of(i, false).c_str(), value.get()));
    }
    return std::make_unique<OrtCall>(api_, session_.get(), std::move(owned));
  }

 private:
  void check(OrtStatus* status) const { library_.check(status, graph_of(stage_) + " cannot be used"); }

  // what: in which the graph differs.
  Error other(const std::string& what) const {
    return Error(Code::kIncompatible, text(graph_of(stage_), " has other ", what, " than the manifest says"))
        .hint(kAgain);
  }

  std::string name_of(size_t number, bool is_input) const {
    OrtAllocator* allocator = nullptr;
    check(api_.GetAllocatorWithDefaultOptions(&allocator));
    char* characters = nullptr;
    const auto get = is_input ? api_.SessionGetInputName : api_.SessionGetOutputName;
    check(get(session_.get(), number, allocator, &characters));
    const std::string name = characters;
    check(api_.AllocatorFree(allocator, characters));
    return name;
  }

  // The session's input or output of this number, over its address. Its shape may be a view of the stage's.
  OrtOwned<OrtValue> tensor(size_t number, bool is_input, const std::vector<TensorSpec>& specs,
                            const std::vector<Address>& addresses) const {
    const std::string name = name_of(number, is_input);
    const auto spec =
        std::find_if(specs.begin(), specs.end(), [&](const TensorSpec& tensor) { return tensor.binding() == name; });
    const auto address =
        std::find_if(addresses.begin(), addresses.end(), [&](const Address& entry) { return entry.first == name; });
    if (spec == specs.end() || address == addresses.end()) throw other("tensors");
    OrtTypeInfo* info = nullptr;
    const auto get = is_input ? api_.SessionGetInputTypeInfo : api_.SessionGetOutputTypeInfo;
    check(get(session_.get(), number, &info));
    const OrtOwned<OrtTypeInfo> owned_info(info, {api_.ReleaseTypeInfo});
    const OrtTensorTypeAndShapeInfo* type_and_shape = nullptr;
    check(api_.CastTypeInfoToTensorInfo(info, &type_and_shape));
    if (type_and_shape == nullptr) throw other("types");
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api_.GetTensorElementType(type_and_shape, &type));
    size_t rank = 0;
    check(api_.GetDimensionsCount(type_and_shape, &rank));
    std::vector<int64_t> shape(rank);
    check(api_.GetDimensions(type_and_shape, shape.data(), rank));
    int64_t count = 1;
    for (int64_t side : shape) {
      if (side < 1 || side > spec->count() / count) throw other("shapes");  // also a side that is not fixed
      count *= side;
    }
    if (count != spec->count() || type != type_of(spec->dtype)) throw other("types or shapes");
    OrtMemoryInfo* memory = nullptr;
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    const OrtOwned<OrtMemoryInfo> owned_memory(memory, {api_.ReleaseMemoryInfo});
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
        asked_file_(options.onnxruntime_library),
        asked_threads_(options.threads),
        library_(
            OrtLibrary::open(options.onnxruntime_library, options.threads > 0 ? options.threads : available_threads())),
        options_(nullptr, {library_.api().ReleaseSessionOptions}) {
    const OrtApi& api = library_.api();
    OrtSessionOptions* session_options = nullptr;
    check(api.CreateSessionOptions(&session_options));
    options_.reset(session_options);
    check(api.DisablePerSessionThreads(session_options));
    for (const char* key :
         {"session.force_spinning_stop",  // threads that wait for the next stage by spinning take this one's time
          "session.use_env_allocators",
          "session.disable_quant_qdq"})  // 8-bit weights of layers that compute in float32 are widened once
      check(api.AddSessionConfigEntry(session_options, key, "1"));
  }

  std::string described() const override {
    const char* wide = folder_.manifest.dtype() == DType::kFloat32 ? "" : ", computing in float32";
    const int threads = library_.threads();
    return text("ONNX Runtime ", library_.version(), " on the CPU, ", threads, threads == 1 ? " thread" : " threads",
                wide);
  }
  std::vector<std::string> warnings() const override {
    std::vector<std::string> warnings;
    if (!asked_file_.empty() && !library_.is(asked_file_)) {
      warnings.push_back(text("Options::onnxruntime_library ", asked_file_,
                              " is not used: the process's first pipeline ", "opened ", library_.file()));
    }
    if (asked_threads_ > 0 && asked_threads_ != library_.threads()) {
      warnings.push_back(text("Options::threads ", asked_threads_, " is not used: the process's first pipeline took ",
                              library_.threads()));
    }
    return warnings;
  }
  Device& device() override { return device_; }

  std::unique_ptr<Engine> load(const Stage& stage) override {
    return std::make_unique<OrtEngine>(library_, stage, options_.get(), folder_.file(graph_of(stage)));
  }

 private:
  void check(OrtStatus* status) const { library_.check(status, "ONNX Runtime refuses its options", Code::kFailure); }

  const EngineFolder& folder_;
  std::string asked_file_;
  int asked_threads_;
  const OrtLibrary& library_;
  OrtOwned<OrtSessionOptions> options_;
  HostDevice device_;
};

}  // namespace

std::unique_ptr<EngineLoader> onnxruntime_loader(const EngineFolder& folder, const Options& options) {
  if (options.threads < 0) {
    throw Error(Code::kUsage, "the number of threads is below 0")
        .got(std::to_string(options.threads))
        .allowed("1 or more; 0: every CPU");
  }
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
