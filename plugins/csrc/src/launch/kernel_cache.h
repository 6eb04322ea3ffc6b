// Kernels that this process has loaded, by GPU.
#pragma once

#include <map>
#include <mutex>

#include "kernels/kernel_table.h"
#include "launch/driver.h"

namespace page4d::plugin {

// Loaded once a process and kept: a kernel belongs to no context, and the driver may be gone before static objects are.
class KernelCache {
 public:
  static KernelCache& get();

  // The kernel, ready to be launched on a GPU whose context is current.
  cuda::Kernel kernel(const Entry& entry, cuda::Device device);

 private:
  std::mutex mutex_;
  std::map<const Entry*, cuda::Kernel> loaded_;
};

}  // namespace page4d::plugin
