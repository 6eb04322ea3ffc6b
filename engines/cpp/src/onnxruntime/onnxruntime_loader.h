// Loads the graphs of an engine folder for a CPU by ONNX Runtime. Mirrors page4d_engines/ort/cpu_engine.py.
#pragma once

#include <memory>

#include "manifest/engine_folder.h"
#include "page4d/pipeline.h"
#include "runtime/engine.h"

namespace page4d {

// The folder must outlive the loader.
// Throws Error: kIncompatible if the folder has no graphs for a CPU; kMissingBackend without ONNX Runtime; kUsage for
// threads below 0.
std::unique_ptr<EngineLoader> onnxruntime_loader(const EngineFolder& folder, const Options& options);

// The manifest as a CPU computes: 16-bit tensors are float32.
Manifest widened(Manifest manifest);

// Names of the files that the loader reads on this machine, weights included.
std::vector<std::string> onnxruntime_files(const Manifest& manifest);

}  // namespace page4d
