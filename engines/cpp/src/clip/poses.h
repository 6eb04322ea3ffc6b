// Camera poses from the camera head's output. Mirrors page4d/network/poses.py.
#pragma once

#include <cstdint>

namespace page4d {

inline constexpr int kPoseSize = 12;  // values of an encoded pose: a translation, then a 3x3 matrix row by row

// Pose matrices. The rotation is the one nearest to the head's three rows, each scaled to length 1. Allocates nothing.
//
// encoded: [n,kPoseSize].
// pose: [n,4,4]: camera to world; the world is the frame of no camera. NaN if an element of `encoded` is not finite.
void camera_to_world(const float* encoded, int64_t n, double* pose) noexcept;

}  // namespace page4d
