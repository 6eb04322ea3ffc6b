#include <sched.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "files/files.h"
#include "files/folder_file.h"
#include "onnxruntime/cpu_graph_check.h"
#include "onnxruntime/cuda_provider.h"
#include "onnxruntime/library.h"
#include "onnxruntime/onnxruntime_loader.h"
#include "onnxruntime/ort_engine.h"
#include "runtime/host_device.h"
#include "text.h"

namespace page4d {
namespace {

constexpr char kAgain[] = "page4d-export again";
constexpr size_t kLargestOnnx = (size_t{1} << 31) - 1;  // of a protobuf message; large weights lie beside it

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

// The file of the stage's graph for this CPU. On a GPU engines are float32, which have one.
const std::string& graph_of(const Stage& stage) {
  static const bool is_signed = multiplies_signed();
  return is_signed && !stage.cpu_signed.empty() ? stage.cpu_signed : stage.cpu;
}

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
    if (options.backend != Backend::kOnnxruntimeCuda) return;
    require_cuda_provider(library_);
    gpu_.emplace(options.device);
    gpu_number_ = options.device;
    const Entered entered(*gpu_);
    entered.check();
    append_cuda_provider(library_, session_options, gpu_number_, *gpu_);
  }

  std::string described() const override {
    if (gpu_) return text("ONNX Runtime ", library_.version(), " on ", gpu_->name(), ", float32");
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
  Device& device() override { return gpu_ ? static_cast<Device&>(*gpu_) : host_; }

  std::unique_ptr<Engine> load(const Stage& stage) override {
    const std::string& name = graph_of(stage);
    const std::string file = path_inside(folder_.path, name);
    const std::optional<std::string> content = read_file(file, kLargestOnnx);
    if (!content) {
      throw Error(Code::kIncompatible, name + " cannot be read")
          .allowed(text("a file of up to ", kLargestOnnx, " bytes"))
          .hint(kAgain);
    }
    check_cpu_graph(*content, name, folder_, stage);
    const OrtPlace place{gpu_ ? "Cuda" : "Cpu", gpu_number_, device()};
    return ort_engine(library_, options_.get(), stage, name, file, place);
  }

 private:
  void check(OrtStatus* status) const { library_.check(status, "ONNX Runtime refuses its options", Code::kFailure); }

  const EngineFolder& folder_;
  std::string asked_file_;
  int asked_threads_;
  const OrtLibrary& library_;
  OrtOwned<OrtSessionOptions> options_;
  HostDevice host_;
  std::optional<CudaDevice> gpu_;
  int gpu_number_ = 0;
};

}  // namespace

std::unique_ptr<EngineLoader> onnxruntime_loader(const EngineFolder& folder, const Options& options) {
  if (options.threads < 0) {
    throw Error(Code::kUsage, "the number of threads is below 0")
        .got(std::to_string(options.threads))
        .allowed("1 or more; 0: every CPU");
  }
  if (options.backend == Backend::kOnnxruntimeCuda && folder.manifest.precision != "float32") {
    throw Error(Code::kIncompatible, "Backend::kOnnxruntimeCuda computes engines in float32 alone")
        .got(folder.manifest.precision)
        .allowed("float32")
        .hint("page4d-export without --fp16, --bf16, --fp8 and --int8; or plans, Backend::kTensorrt");
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
