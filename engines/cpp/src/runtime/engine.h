// Loaded stages and what loads them: the interface that hides TensorRT and ONNX
// Runtime.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "manifest/manifest.h"
#include "runtime/device.h"

namespace page4d {

// An input's or output's name in the engine, and its address.
using Address = std::pair<std::string, void*>;

// A call over fixed addresses.
class BoundCall {
 public:
  virtual ~BoundCall() = default;
  virtual Failure launch(Stream stream) noexcept = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Bytes that a call needs beside its inputs and outputs; all stages share one block.
  virtual size_t scratch() const = 0;
  // The engine must outlive the call. Throws Error.
  virtual std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                          void* scratch) = 0;
  // Why it cannot be part of a CUDA graph; empty if it can. Called after a first run.
  virtual std::string uncapturable(Stream) { return {}; }
};

// A device, and engines on it.
class EngineLoader {
 public:
  virtual ~EngineLoader() = default;
  // What computes, as text.
  virtual std::string described() const = 0;
  // What of the caller's options has no effect, a line each.
  virtual std::vector<std::string> warnings() const { return {}; }
  virtual Device& device() = 0;
  // Throws Error.
  virtual std::unique_ptr<Engine> load(const Stage& stage) = 0;
};

}  // namespace page4d
