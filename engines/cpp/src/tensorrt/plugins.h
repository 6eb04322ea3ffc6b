// The library of the attention plugins: its file, and which kernels are in it.
#pragma once

#include <string>

#include "manifest/engine_folder.h"

namespace page4d {

struct PluginLibrary {
  std::string file;
  std::string kernels;  // sha256 of their source

  // requested: a file; empty: the library beside this one or, with `from_folder`, the engine folder's, which is code
  // from the folder's author. Throws Error kMissingBackend: there is no such file, or it is another library;
  // kIncompatible: the folder's library is not listed in its manifest.
  static PluginLibrary find(const EngineFolder& folder, const std::string& requested, bool from_folder = false);
};

}  // namespace page4d
