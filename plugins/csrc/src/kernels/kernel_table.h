// The kernels in this library: machine code for every GPU architecture of the pack, with what launches need to know.
// Mirrors kernel_pack.py.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "kernels/modes.h"
#include "view.h"

namespace page4d::plugin {

// A parameter of a kernel. Kernels list their parameters in the order of the machine code's own table.
struct Parameter {
  // Parts of a descriptor: KD, KD.shape0 .., KD.stride0 ..; empty for scratch pointers, which are always null.
  std::string_view name;
  size_t size;  // bytes: 4 (int32, float32), 8 (int64, pointer), 128 (tensor map)
  bool floating;
};

// In place of a GPU architecture: code that the driver compiles itself.
inline constexpr int kPtx = 0;

// One kernel for one GPU architecture.
struct Entry {
  std::string_view kernel;  // attention_<mode>, prepare or merge
  Dtype dtype;
  int chip;            // compute capability times ten, or kPtx
  const char* symbol;  // of the kernel in the code
  Tile tile;
  unsigned threads;
  unsigned shared;  // bytes of dynamic shared memory
  View<Parameter> parameters;
  const unsigned char* code;  // PTX ends with a zero

  std::string path() const;  // in the pack
};

class KernelTable {
 public:
  // The kernels of the pack that this library was built with.
  static const KernelTable& embedded();

  explicit KernelTable(View<Entry> entries) : entries_(entries) {}

  View<Entry> entries() const { return entries_; }

  // The kernel for a GPU's compute capability times ten: of that architecture, else the PTX. For kPtx the PTX.
  // Throws Error if the GPU is older than the PTX, or the pack lacks the kernel.
  const Entry& kernel(std::string_view name, Dtype dtype, int capability) const;

  // The kernel of exactly this architecture; null if there is none.
  const Entry* find(std::string_view name, Dtype dtype, int chip) const;

 private:
  View<Entry> entries_;
};

// Generated from the pack.
extern const View<Entry> kEmbedded;
// sha256 of the files from which the kernels are built: identifies their version.
extern const char kEmbeddedSource[];

}  // namespace page4d::plugin
