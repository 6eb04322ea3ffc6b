// An engine folder on disk: complete, or refused before anything in it is loaded. Mirrors
// page4d_engines/engine_folder.py.
#pragma once

#include <string>

#include "manifest/manifest.h"
#include "page4d/engine_info.h"

namespace page4d {

// the attention plugins' library, if the folder has it
inline constexpr char kPlugins[] = "plugins/libpage4d_plugins.so";

struct EngineFolder {
  std::string path;
  Manifest manifest;

  // Files::kUsed checks only the files that a runtime loads: constants, plans and plugins. Throws Error kIncompatible:
  // no manifest, or a file that is missing, changed, no regular file or outside the folder.
  static EngineFolder open(const std::string& path, Files files);

  // Compares listed files with their hashes. Throws Error kIncompatible, as above.
  void check(const std::vector<std::string>& names) const;

  // Path of a file by its name in the manifest.
  std::string file(const std::string& name) const;
};

}  // namespace page4d
