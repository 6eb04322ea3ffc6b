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

// The kernels of one call on one GPU, loaded and with their parameters laid out; launching only launches.
//
// Neither allocates nor synchronises on the GPU, so that it may launch while a CUDA graph is captured. One thread at a
// time.
class Launcher {
 public:
  // Loads what the call needs on the GPU whose context is current; where the driver refuses the code of its chip, as
  // one older than the code's assembler may, the PTX, which it compiles itself. Throws Error for sizes that the kernels
  // do not take, a GPU too old, a kernel missing, no driver.
  Launcher(const Shape& shape, const KernelTable& table);

  // `addresses` are of the op's inputs, the output, and a workspace of the plan's size, a multiple of 256.
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
