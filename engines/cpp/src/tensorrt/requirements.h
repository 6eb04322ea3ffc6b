// What plans require of a machine, checked before anything is loaded; errors name the command that rebuilds the plans.
// Mirrors page4d_engines/tensorrt/requirements.py.
#pragma once

#include <string>

#include "manifest/manifest.h"

namespace page4d {

// What plans depend on.
struct Machine {
  std::string library;  // "TensorRT" or "TensorRT-RTX"
  std::string version;  // of the library
  int capability = 0;   // of the GPU, times ten
  std::string kernels;  // sha256 of the source of the attention kernels in the plugins' library; empty: no library
};

// Throws Error kIncompatible if the folder has no plans.
const Plans& plans_of(const Manifest& manifest, const std::string& folder);

// Throws Error kIncompatible: another TensorRT, another GPU architecture, or other kernels.
void require(const Plans& plans, const Machine& machine, const std::string& folder);

}  // namespace page4d
