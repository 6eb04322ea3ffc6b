// Point clouds: the fields of a sensor_msgs/PointCloud2 from what the engines give of an image. Needs no ROS.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace page4d_ros {

// A field of a point, float32.
struct CloudField {
  const char* name;
  uint32_t offset;
};

// rgb: 0x00RRGGBB in the bits of a float, as PCL and RViz read it. dynamic: the mask's probability, 0 without a mask.
constexpr std::array<CloudField, 6> kCloudFields = {
    {{"x", 0}, {"y", 4}, {"z", 8}, {"rgb", 12}, {"confidence", 16}, {"dynamic", 20}}};
constexpr uint32_t kPointBytes = 24;

// What the engines give of one image, in host memory.
struct CloudSource {
  int64_t H = 0, W = 0;
  const float* points = nullptr;      // [H,W,3]; null: from depth and K
  const float* depth = nullptr;       // [H,W], z
  const double* K = nullptr;          // 3x3, pixel (row, column) is at (column, row)
  const float* confidence = nullptr;  // [H,W]; null: 1 for every point
  bool is_logit = false;              // of the confidence: its sigmoid is a probability
  const uint8_t* image = nullptr;     // RGB [H,W]
  size_t row_bytes = 0;
  const float* mask = nullptr;  // [h,w], a value per patch; null: none
  int64_t h = 0, w = 0;
};

// The fields of a sensor_msgs/PointCloud2, organised: a point per pixel of the engines' image, row by row. Points that
// are left out are NaN, so it is not dense.
struct Cloud {
  uint32_t width = 0, height = 0, point_step = kPointBytes, row_step = 0;
  bool is_bigendian = false;  // as on this machine
  bool is_dense = false;
  std::vector<uint8_t> data;
};

// Which points are kept.
struct CloudLimits {
  double probability = 0;  // least, of confidences that are logits
  double percentile = 0;   // least confidence as a percentile of the image, of confidences that are none; 0 to 100
};

// In the frame of `points`; from depth and K in the camera's. Left out: points that are not finite, those on or behind
// the camera where they are made from depth, those below the limits.
Cloud cloud_of(const CloudSource& source, const CloudLimits& limits);

}  // namespace page4d_ros
