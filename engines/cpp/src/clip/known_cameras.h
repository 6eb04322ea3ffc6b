// Known cameras for Depth Anything 3: what its camera encoder reads, and the scale of its results. float64 throughout.
// Mirrors page4d/network/known_cameras.py.
#pragma once

#include <cstdint>
#include <vector>

#include "page4d/image.h"

namespace page4d {

// The calibration of the V images of a clip, in pixels of the engines' images.
class KnownCameras {
 public:
  // The cameras must have passed check().
  explicit KnownCameras(const std::vector<Camera>& cameras);

  int64_t views() const { return static_cast<int64_t>(K_.size()) / 9; }
  const double* camera_to_world() const { return poses_.data(); }  // [V,4,4]
  const double* K() const { return K_.data(); }                    // [V,3,3]

  // The camera encoder's input for images of H x W pixels, [V,9]: camera to world as translation and quaternion x y z w
  // (w >= 0), in the first camera's frame and with the median distance of the cameras from it as unit; vertical and
  // horizontal field of view.
  std::vector<double> encoded(int64_t H, int64_t W);
  // The same to [V,9], as the present cameras alone are encoded: in the frame of the first of them. present: one value
  // per view, 0 for an absent one, whose row becomes zeros; null: all. Allocates nothing; one thread at a time.
  void encode(int64_t H, int64_t W, const uint8_t* present, double* target) noexcept;

  // How many of the network's units one unit of the known cameras is, by the cameras [V,4,4] that it estimates: depth
  // is divided by that. 1 where the cameras' centres tell no scale. From ten cameras on, those that are estimated far
  // from where they are known to be do not count. Absent cameras never count; present: as above. Allocates nothing;
  // one thread at a time.
  double scale(const double* camera, const uint8_t* present = nullptr) noexcept;

 private:
  std::vector<double> world_to_camera_, poses_, K_;
  // scratch memory
  std::vector<double> known_, estimated_;  // [V,4,4], of the present cameras
  std::vector<double> distances_;          // [V]
  std::vector<int64_t> places_;            // [V]
};

}  // namespace page4d
