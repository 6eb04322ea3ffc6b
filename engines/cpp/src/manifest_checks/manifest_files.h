// Whether every file that a manifest uses is listed with its hash. Mirrors page4d/manifest_checks/manifest_files.py.
#pragma once

#include <string>

#include "manifest/manifest.h"

namespace page4d {

// Throws Error kIncompatible for the first name outside the folder, or file that is used and not listed.
void check_files(const Manifest& manifest);

// Whether a name is a plain relative path: no part is empty, `.` or `..`.
bool is_inside(const std::string& name);

}  // namespace page4d
