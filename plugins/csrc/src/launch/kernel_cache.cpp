#include "launch/kernel_cache.h"

namespace page4d::plugin {

KernelCache& KernelCache::get() {
  static KernelCache cache;
  return cache;
}

cuda::Kernel KernelCache::kernel(const Entry& entry, cuda::Device device) {
  const Driver& driver = Driver::get();
  const std::lock_guard<std::mutex> lock(mutex_);
  auto kernel = loaded_.find(&entry);
  if (kernel == loaded_.end()) kernel = loaded_.emplace(&entry, driver.load(entry)).first;
  driver.prepare(kernel->second, entry.shared, device);
  return kernel->second;
}

}  // namespace page4d::plugin
