// The parameters of one launch in memory, as the driver reads them, in the order of the kernel's own table. Mirrors
// parameters.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/kernel_table.h"
#include "plan/launch_plan.h"

namespace page4d::plugin {

// The driver's CUtensorMap; aligned as in CUDA 13, to twice the alignment of CUDA 12.
struct alignas(128) TensorMap {
  unsigned char bytes[128];
};

// Addresses of all tensors on the GPU, indexed by Tensor; 0 for tensors that a call lacks.
using Addresses = std::array<uint64_t, kTensors>;

// Makes a tensor map over the tensor at an address.
using Encode = std::function<TensorMap(const Descriptor&, uint64_t address)>;

// The array that cuLaunchKernel reads: an address for each parameter. Values are written once, the tensors' addresses
// before a launch.
class ParameterBlock {
 public:
  // Throws Error if a parameter has no value, or a value that does not fit.
  ParameterBlock(View<Parameter> parameters, const Values& values);

  // The table points into the slots, whose memory a move does not change.
  ParameterBlock(ParameterBlock&&) = default;

  // The array of addresses.
  void** table() { return table_.data(); }

  // Writes the tensors' addresses; does nothing if they are those of the last call.
  void point(const Addresses& addresses, const Encode& encode);

 private:
  std::vector<TensorMap> slots_;  // one for each parameter, as large and aligned as the largest
  std::vector<void*> table_;
  std::vector<std::pair<size_t, std::variant<Ref, Descriptor>>> refs_;
  std::optional<Addresses> pointed_;
};

}  // namespace page4d::plugin
