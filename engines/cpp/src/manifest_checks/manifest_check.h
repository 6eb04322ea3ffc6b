// Whether a manifest is consistent, so that no later step has to check. Mirrors
// page4d/manifest_checks/manifest_check.py.
#pragma once

#include <map>
#include <string>

#include "manifest/manifest.h"
#include "page4d/error.h"

namespace page4d {

// What a manifest's points_frame and pose_direction may be.
inline constexpr char kFrames[] = "camera, world", kDirections[] = "world_to_camera, camera_to_world";

// The error of a manifest whose parts do not match.
Error inconsistent(const std::string& what, const std::string& got, const std::string& allowed);

// Throws Error kIncompatible if the sizes are no layout.
Layout layout_of(const std::map<std::string, int64_t>& sizes);

// Throws Error kIncompatible, which names the first part that does not match the others.
void check_manifest(const Manifest& manifest);

}  // namespace page4d
