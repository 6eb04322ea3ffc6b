#include "launch/launcher.h"

#include "error.h"
#include "launch/kernel_cache.h"

namespace page4d::plugin {

Launcher::Launcher(const Shape& shape, const KernelTable& table) : shape_(shape) {
  const Driver& driver = Driver::get();
  const cuda::Device device = driver.current_device();
  const int capability = driver.capability_of(device);
  const Plan plan = plan_for(shape, table, capability);  // refuses unsupported sizes before a kernel is loaded
  try {
    load(table, capability, device);
  } catch (const Error&) {
    if (table.kernel(plan.launches.front().kernel, shape.dtype, capability).chip == kPtx) throw;
    launches_.clear();
    try {
      load(table, kPtx, device);
    } catch (const Error&) {
      launches_.clear();
    }
    if (launches_.empty()) throw;  // with the first message
  }
}

void Launcher::load(const KernelTable& table, int chip, cuda::Device device) {
  for (const Launch& launch : plan_for(shape_, table, chip).launches) {
    const Entry& entry = table.kernel(launch.kernel, shape_.dtype, chip);
    launches_.push_back({launch.grid, KernelCache::get().kernel(entry, device), entry.threads, entry.shared,
                         ParameterBlock(entry.parameters, launch.values)});
  }
}

void Launcher::launch(const Addresses& addresses, cuda::Stream stream) {
  const Driver& driver = Driver::get();
  const Encode encode = [&](const Descriptor& descriptor, uint64_t address) {
    return driver.encode(descriptor, shape_.dtype, address);
  };
  for (Loaded& launch : launches_) {
    launch.block.point(addresses, encode);
    driver.launch(launch.kernel, launch.grid, launch.threads, launch.shared, stream, launch.block.table());
  }
}

}  // namespace page4d::plugin
