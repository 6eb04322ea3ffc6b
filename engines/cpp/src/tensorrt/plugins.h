// The library of the attention plugins: where it lies, and which kernels are in it.
#pragma once

#include <string>

#include "manifest/engine_folder.h"

namespace page4d {

struct PluginLibrary {
  std::string file;
  std::string kernels;  // sha256 of their source

  // given: a file that was asked for; empty: the one beside this library, or, with `from_folder`, the engine folder's:
  // code of whoever made the folder. Throws Error kMissingBackend: there is none, or it is no such library;
  // kIncompatible: the folder's is asked for and not listed in its manifest.
  static PluginLibrary find(const EngineFolder& folder, const std::string& requested, bool from_folder = false);
};

}  // namespace page4d
