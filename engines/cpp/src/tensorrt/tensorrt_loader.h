// Loads the plans of an engine folder by TensorRT, TensorRT-RTX or TensorRT's lean runtime.
#pragma once

#include <memory>

#include "manifest/engine_folder.h"
#include "page4d/pipeline.h"
#include "runtime/engine.h"

namespace page4d {

// Compares the plans with this machine before anything is loaded. The folder must outlive the loader.
// Throws Error: kIncompatible if the folder has no plans, or plans for another machine; kMissingBackend without a
// driver, GPU or library, or if this build has no TensorRT.
std::unique_ptr<EngineLoader> tensorrt_loader(const EngineFolder& folder, const Options& options);

}  // namespace page4d
