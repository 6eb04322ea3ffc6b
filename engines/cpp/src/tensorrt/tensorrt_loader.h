// The plans of an engine folder, by TensorRT, TensorRT-RTX or TensorRT's lean runtime.
#pragma once

#include <memory>

#include "manifest/engine_folder.h"
#include "page4d/pipeline.h"
#include "runtime/engine.h"

namespace page4d {

// Holds the plans against this machine before anything is loaded. The folder must outlive what it gives.
// Throws Error: kIncompatible where the folder has no plans or they are for something else, kMissingBackend where there
// is no driver, GPU or library, or where this build has no TensorRT.
std::unique_ptr<EngineLoader> tensorrt_loader(const EngineFolder& folder, const Options& options);

}  // namespace page4d
