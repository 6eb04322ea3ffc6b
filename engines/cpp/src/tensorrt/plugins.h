// The library of the attention plugins: where it lies, and which kernels are in it.
#pragma once

#include <string>

#include "engine_folder.h"

namespace page4d {

struct PluginLibrary {
  std::string file;
  std::string kernels;  // sha256 of their source

  // given: a file that was asked for; empty: the engine folder's, else the one beside this library.
  // Throws Error kMissingBackend: there is none, or it is no such library.
  static PluginLibrary find(const EngineFolder& folder, const std::string& given);
};

}  // namespace page4d
