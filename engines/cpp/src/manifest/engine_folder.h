// An engine folder on disk: found whole, or refused before anything in it is loaded. Mirrors page4d_engines/folder.py.
#pragma once

#include <string>

#include "manifest/manifest.h"
#include "page4d/engine_info.h"

namespace page4d {

inline constexpr char kPlugins[] = "plugins/libpage4d_plugins.so";  // where a folder has the attention plugins' library

struct EngineFolder {
  std::string path;
  Manifest manifest;

  // Files::kUsed: of the files that are there only those that a runtime loads are looked at: constants, plans and
  // plugins. Throws Error kIncompatible: no manifest, a file missing, changed, no regular file or outside the folder.
  static EngineFolder open(const std::string& path, Files files);

  // Path of a file by its name in the manifest.
  std::string file(const std::string& name) const;
};

}  // namespace page4d
