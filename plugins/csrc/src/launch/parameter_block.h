// The parameters of one launch in memory, as the driver takes them: in the order of the kernel's own table, whatever
// the order of names. Mirrors parameters.py.
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

// What the driver calls a CUtensorMap; aligned as CUDA 13 has it, twice what CUDA 12 asks for.
struct alignas(128) TensorMap {
  unsigned char bytes[128];
};

// Of every tensor on the GPU, indexed by Tensor; 0 for those that a call lacks.
using Addresses = std::array<uint64_t, kTensors>;

// Makes a tensor map over the tensor at an address.
using Encode = std::function<TensorMap(const Descriptor&, uint64_t address)>;

// What cuLaunchKernel reads: an array of addresses, one for each parameter. Numbers are written once, addresses before
// a launch.
class ParameterBlock {
 public:
  // Throws Error where a parameter has no value, or one that does not fit into it.
  ParameterBlock(View<Parameter> parameters, const Values& values);

  // The table points into the slots, which a move leaves where they are.
  ParameterBlock(ParameterBlock&&) = default;

  // The array of addresses.
  void** table() { return table_.data(); }

  // Write the tensors' addresses; nothing is done where they are the last call's.
  void point(const Addresses& addresses, const Encode& encode);

 private:
  std::vector<TensorMap> slots_;  // one for each parameter, as large and aligned as the largest
  std::vector<void*> table_;
  std::vector<std::pair<size_t, std::variant<Ref, Descriptor>>> refs_;
  std::optional<Addresses> pointed_;
};

}  // namespace page4d::plugin
