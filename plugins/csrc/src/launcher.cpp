#include "launcher.h"

#include "kernel_cache.h"

namespace page4d {

Launcher::Launcher(const Shape& shape, const KernelTable& table) : shape_(shape) {
  const Driver& driver = Driver::get();
  const cuda::Device device = driver.current_device();
  const int capability = driver.capability_of(device);
  for (const Launch& launch : plan_for(shape, table, capability).launches) {
    const Entry& entry = table.kernel(launch.kernel, shape.dtype, capability);
    launches_.push_back({launch.grid, KernelCache::get().kernel(entry, device), entry.threads, entry.shared, ParameterBlock(entry.parameters, launch.values)});
  }
}

void Launcher::launch(const Addresses& addresses, cuda::Stream stream) {
  const Driver& driver = Driver::get();
  const Encode encode = [&](const Descriptor& descriptor, uint64_t address) { return driver.encode(descriptor, shape_.dtype, address); };
  for (Loaded& each : launches_) {
    each.block.point(addresses, encode);
    driver.launch(each.kernel, each.grid, each.threads, each.shared, stream, each.block.table());
  }
}

}  // namespace page4d
