// The loader of a build without TensorRT's headers.
#include "cuda/cuda_device.h"
#include "page4d/error.h"
#include "tensorrt/requirements.h"
#include "tensorrt/tensorrt_loader.h"

namespace page4d {

std::unique_ptr<EngineLoader> tensorrt_loader(const EngineFolder& folder, const Options&) {
  plans_of(folder.manifest, folder.path);
  throw Error(Code::kMissingBackend, "this build of page4d has no TensorRT")
      .hint("cmake -DTensorRT_ROOT=<folder whose include/ has NvInferRuntime.h>");
}

}  // namespace page4d
