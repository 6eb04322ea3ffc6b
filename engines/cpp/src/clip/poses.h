// Cameras from the values that camera heads give, and points from depth. Mirrors page4d/network/poses.py. Nothing here
// allocates.
#pragma once

#include <cstdint>

namespace page4d {

// What the nine numbers of a camera head say.
enum class PoseDirection { kWorldToCamera, kCameraToWorld };

// Values of a camera. Pi3's head: a translation, then three rows of a matrix; camera to world. The other heads: a
// translation, a quaternion (x y z w), vertical and horizontal field of view in radians; the model decides of which
// direction.
inline constexpr int64_t kRowNumbers = 12, kQuaternionNumbers = 9;
inline constexpr int64_t kMostCameraNumbers = 12;

// Pose matrices, from either encoding: `size` decides.
//
// numbers: [n,size]. kRowNumbers: the rotation is the one nearest to the three rows, each scaled to length 1.
// kQuaternionNumbers: it is that of the quaternion divided by its length, in `direction`.
// pose: [n,4,4]: camera to world. NaN where a value is not finite, or the quaternion is 0.
void camera_to_world(const float* numbers, int64_t size, int64_t n, PoseDirection direction, double* pose) noexcept;

// The inverse of a rigid pose, 4x4.
void inverse_pose(const double* pose, double* inverse) noexcept;

// K for images of the network's size, from the fields of view among nine numbers.
//
// numbers: [n,kQuaternionNumbers].
// K: [n,3,3]; the principal point is (W/2, H/2). A focal length is NaN where its field of view is no camera's: 0 (which
// the head's ReLU gives), pi or more, not finite.
void intrinsics(const float* numbers, int64_t n, int64_t H, int64_t W, double* K) noexcept;

// The points of an image's pixels in the world, from their depth; computed in double. Pixel (row, column) is seen at
// (u, v) = (column, row), without half a pixel, as VGGT is trained.
//
// depth: [H,W], z in the camera's frame. K: 3x3. pose: 4x4, camera to world.
// points: [H,W,3]; NaN where K or the pose is.
void unproject(const float* depth, const double* K, const double* pose, int64_t H, int64_t W, float* points) noexcept;

// Points [n,3] of a camera's frame in the world; computed in double. pose: 4x4, camera to world.
void to_world(const float* points, const double* pose, int64_t n, float* world) noexcept;

}  // namespace page4d
