#include "kernels/kernel_table.h"

#include "error.h"

namespace page4d::plugin {

std::string Entry::path() const {
  const std::string name = text(kernel, "_", name_of(dtype));
  return chip == kPtx ? text("ptx/", name, ".ptx") : text("sm_", chip, "/", name, ".cubin");
}

const KernelTable& KernelTable::embedded() {
  static const KernelTable table(kEmbedded);
  return table;
}

const Entry* KernelTable::find(std::string_view name, Dtype dtype, int chip) const {
  for (const Entry& entry : entries_)
    if (entry.chip == chip && entry.dtype == dtype && entry.kernel == name) return &entry;
  return nullptr;
}

const Entry& KernelTable::kernel(std::string_view name, Dtype dtype, int capability) const {
  if (capability != kPtx && capability < kFallback)
    throw Error("the attention kernels do not run on this GPU")
        .got(text("sm_", capability))
        .allowed(text("sm_", kFallback, " or newer"));
  for (int chip : {capability, kPtx})
    if (const Entry* entry = find(name, dtype, chip)) return *entry;
  throw Error("the kernel pack lacks a kernel")
      .got(text(name, "_", name_of(dtype), " for sm_", capability))
      .hint("page4d plugins build");
}

}  // namespace page4d::plugin
