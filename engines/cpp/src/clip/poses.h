// Camera poses from the numbers that the camera head gives, as page4d.poses.
#pragma once

#include <cstdint>

namespace page4d {

// Pose matrices, whose rotation is the nearest to the head's three rows after each row is scaled to length 1. Allocates
// nothing.
//
// numbers: [n,12]: a translation, then nine numbers row by row.
// pose: [n,4,4]: a point of the camera's frame to the world, which is no camera's frame; NaN where a number is not
// finite.
void camera_to_world(const float* encoded, int64_t n, double* pose) noexcept;

}  // namespace page4d
