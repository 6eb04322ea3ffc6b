// cameras.json: the calibration of a rig.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "page4d/image.h"
#include "text.h"

namespace offline {

// In the order of the file.
using Cameras = std::vector<std::pair<std::string, page4d::Camera>>;

// One entry. Throws page4d::Error kUsage: a key is missing, a shape is wrong, a number is not finite, or the rotation
// is not one.
page4d::Camera camera_of(const std::string& name, const Json& values);
// The entry of a camera; numbers that are not finite become null.
Json entry_of(const page4d::Camera& camera);
// Throws page4d::Error kUsage: no such file, not JSON, or an entry that is not a camera.
Cameras read_cameras(const std::filesystem::path& path);

}  // namespace offline
