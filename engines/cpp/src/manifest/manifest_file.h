// Reads `manifest.json`. Mirrors page4d/manifest_checks/manifest_file.py.
#pragma once

#include <cstddef>
#include <string>

#include "manifest/manifest.h"

namespace page4d {

inline constexpr size_t kLargestManifest = size_t{1} << 24;  // bytes

// From a manifest's text. path: for error messages.
// Throws Error kIncompatible: damaged, of another format, or inconsistent.
Manifest parse_manifest(const std::string& text, const std::string& path);

// Throws Error kIncompatible, also if there is no folder, or no manifest in it.
Manifest read_manifest(const std::string& folder);

}  // namespace page4d
