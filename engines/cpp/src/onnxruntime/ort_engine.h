// One stage's session of ONNX Runtime, bound to fixed memory.
#pragma once

#include <memory>
#include <string>

#include "onnxruntime/library.h"
#include "runtime/engine.h"

namespace page4d {

// Where the inputs and outputs lie.
struct OrtPlace {
  const char* memory;  // ONNX Runtime's name of the kind of memory: "Cpu", "Cuda"
  int number;          // of the device
  Device& device;
};

// name: of the graph's file in the manifest; file: its path. All arguments but the strings must outlive the engine.
// Throws Error: kIncompatible if ONNX Runtime does not take the graph, kOutOfMemory.
std::unique_ptr<Engine> ort_engine(const OrtLibrary& library, const OrtSessionOptions* options, const Stage& stage,
                                   const std::string& name, const std::string& file, const OrtPlace& place);

}  // namespace page4d
