#include "launch/kernel_cache.h"

namespace page4d::plugin {

KernelCache& KernelCache::get() {
  static KernelCache cache;
  return cache;
}

cuda::Kernel KernelCache::kernel(const Entry& entry, cuda::Device device) {
  const Driver& driver = Driver::get();
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = loaded_.find(&entry);
  if (found == loaded_.end()) found = loaded_.emplace(&entry, driver.load(entry)).first;
  driver.prepare(found->second, entry.shared, device);
  return found->second;
}

}  // namespace page4d::plugin
