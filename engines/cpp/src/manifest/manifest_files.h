// Whether every file that a manifest speaks of is listed with its hash. Mirrors page4d/manifest_files.py.
#pragma once

#include <string>

#include "manifest/manifest.h"

namespace page4d {

// Refuses names outside the folder, and uses of files that are not listed: throws Error kIncompatible, naming the first
// one.
void check_files(const Manifest& manifest);

// Whether a name is a plain relative path: no part is empty, `.` or `..`.
bool is_inside(const std::string& name);

}  // namespace page4d
