// Launches a plan's kernels on a GPU. Mirrors launcher.py.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/kernel_table.h"
#include "launch/driver.h"
#include "launch/parameter_block.h"
#include "plan/launch_plan.h"

namespace page4d::plugin {

// The kernels of one call on one GPU, loaded, and their parameters.
//
// `launch` neither allocates nor synchronises, so that a CUDA graph may capture it. One thread at a time.
class Launcher {
 public:
  // Loads what the call needs on the GPU whose context is current. If the driver refuses the code for that GPU's
  // architecture, as a driver older than the code's assembler may, loads the PTX, which the driver compiles itself.
  // Throws Error for sizes that the kernels do not take, a GPU that is too old, a missing kernel, no driver.
  Launcher(const Shape& shape, const KernelTable& table);

  // addresses: of the op's inputs, the output, and a workspace of the plan's size, aligned to 256 bytes.
  void launch(const Addresses& addresses, cuda::Stream stream);

  const Shape& shape() const { return shape_; }

 private:
  // chip: the GPU's compute capability times ten, or kPtx.
  void load(const KernelTable& table, int chip, cuda::Device device);

  struct Loaded {
    std::array<int64_t, 3> grid;
    cuda::Kernel kernel;
    unsigned threads;
    unsigned shared;
    ParameterBlock block;
  };

  Shape shape_;
  std::vector<Loaded> launches_;
};

}  // namespace page4d::plugin
