#include "onnxruntime/cuda_provider.h"

#include <string>
#include <vector>

#include "text.h"

namespace page4d {
namespace {

constexpr char kProvider[] = "CUDAExecutionProvider";
constexpr char kNotStarted[] = "ONNX Runtime's CUDA provider does not start";

std::vector<std::string> providers_of(const OrtLibrary& library) {
  char** names = nullptr;
  int count = 0;
  library.check(library.api().GetAvailableProviders(&names, &count), kNotStarted, Code::kMissingBackend);
  const std::vector<std::string> providers(names, names + count);
  library.check(library.api().ReleaseAvailableProviders(names, count), kNotStarted, Code::kMissingBackend);
  return providers;
}

}  // namespace

void require_cuda_provider(const OrtLibrary& library) {
  const std::vector<std::string> providers = providers_of(library);
  for (const std::string& provider : providers)
    if (provider == kProvider) return;
  throw Error(Code::kMissingBackend, "Backend::kOnnxruntimeCuda needs ONNX Runtime's build for GPUs")
      .got(text(library.file(), " with ", joined(providers)))
      .hint(
          "pip install onnxruntime-gpu in place of onnxruntime, or Options::onnxruntime_library: the path of its "
          "libonnxruntime.so");
}

void append_cuda_provider(const OrtLibrary& library, OrtSessionOptions* options, int number, CudaDevice& device) {
  const OrtApi& api = library.api();
  OrtCUDAProviderOptionsV2* provider = nullptr;
  library.check(api.CreateCUDAProviderOptions(&provider), kNotStarted, Code::kMissingBackend);
  const OrtOwned<OrtCUDAProviderOptionsV2> owned(provider, {api.ReleaseCUDAProviderOptions});
  const std::string device_id = std::to_string(number);
  // as page4d_engines/ort/cuda_engine.py
  const char* keys[] = {"device_id", "use_tf32", "cudnn_conv_algo_search", "arena_extend_strategy"};
  const char* values[] = {device_id.c_str(), "0", "HEURISTIC", "kSameAsRequested"};
  library.check(api.UpdateCUDAProviderOptions(provider, keys, values, std::size(keys)), kNotStarted,
                Code::kMissingBackend);
  library.check(api.UpdateCUDAProviderOptionsWithValue(provider, "user_compute_stream", device.own_stream()),
                kNotStarted, Code::kMissingBackend);
  library.check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, provider), kNotStarted,
                Code::kMissingBackend);
}

}  // namespace page4d
