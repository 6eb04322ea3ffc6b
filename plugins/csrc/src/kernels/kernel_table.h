// The kernels in this library: machine code for every GPU architecture of the pack, with what a launch needs to know.
// Mirrors kernel_pack.py.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "kernels/modes.h"
#include "view.h"

namespace page4d::plugin {

// One parameter of a kernel, in order, as the machine code's own table has it.
struct Parameter {
  // Parts of a descriptor: KD, KD.shape0 .., KD.stride0 ..; empty for scratch pointers, which are always null.
  std::string_view name;
  size_t size;  // bytes: 4 (int32, float32), 8 (int64, pointer), 128 (tensor map)
  bool floating;
};

// In place of an architecture: code that the driver compiles itself.
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

  // The kernel for a GPU of a compute capability times ten: of its architecture, else the PTX. For kPtx the PTX.
  // Throws Error if the GPU is older than the PTX, or the pack lacks the kernel.
  const Entry& kernel(std::string_view name, Dtype dtype, int capability) const;

  // Of exactly this architecture; null if there is none.
  const Entry* find(std::string_view name, Dtype dtype, int chip) const;

 private:
  View<Entry> entries_;
};

// Generated from the pack.
extern const View<Entry> kEmbedded;
// sha256 of the files that decide the kernels: the pack's word on which version of them it is.
extern const char kEmbeddedSource[];

}  // namespace page4d::plugin
