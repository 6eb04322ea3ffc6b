// Depth images, as 16-bit PNG.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

namespace offline {

// The depth of one step of `write_depth`, so that 99.9 % of the depths lie below 60000 steps; 1 where there is none.
double depth_scale(const std::vector<float>& depth);

// 16-bit grey: depth = value * scale, up to half a step. What is not finite or not positive becomes 0, which stands for
// no value; the rest is clipped to 1..65535. depth: [H,W]. Throws std::filesystem::filesystem_error.
void write_depth(const std::filesystem::path& path, const float* depth, int H, int W, double scale);

}  // namespace offline
