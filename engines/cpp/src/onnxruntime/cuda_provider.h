// ONNX Runtime's CUDA provider, which its builds for GPUs have beside the library.
#pragma once

#include "cuda/cuda_device.h"
#include "onnxruntime/library.h"

namespace page4d {

// Throws Error kMissingBackend if the library is a build for CPUs.
void require_cuda_provider(const OrtLibrary& library);

// Sessions with these options compute on the device's own stream, in float32 without TF32. Throws Error
// kMissingBackend: the provider does not start.
void append_cuda_provider(const OrtLibrary& library, OrtSessionOptions* options, int number, CudaDevice& device);

}  // namespace page4d
