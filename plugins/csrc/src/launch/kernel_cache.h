// Kernels that this process has loaded.
#pragma once

#include <map>
#include <mutex>

#include "kernels/kernel_table.h"
#include "launch/driver.h"

namespace page4d::plugin {

// Loaded once per process and never unloaded: a kernel belongs to no context, and at the process's end the driver may
// be unloaded before static objects are destroyed.
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
