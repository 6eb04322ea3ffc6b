// Conversions between the fields of ROS messages and page4d's types. Needs no ROS.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "page4d/fit.h"
#include "page4d/image.h"
#include "page4d/pipeline.h"
#include "page4d/rig.h"

namespace page4d_ros {

// ---- images in

// The fields of a sensor_msgs/Image; `data` points into the message.
struct ImageFields {
  uint32_t width = 0, height = 0;
  uint32_t step = 0;  // bytes from a row to the next
  std::string encoding;
  bool is_bigendian = false;  // has no meaning for channels of one byte, and all encodings here have such
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// Encodings of 8 bits: rgb8, bgr8, rgba8, bgra8, mono8, nv12, nv21 (the second plane behind the first, of the same
// step), yuyv and uyvy (also by their older names yuv422_yuy2 and yuv422), bayer_rggb8 and so on. Throws page4d::Error
// kUsage: another encoding, no pixels, a step shorter than a row, fewer data than its rows. Rig::push refuses sizes
// that an encoding has not.
page4d::Image image_of(const ImageFields& fields);

// ---- time

// builtin_interfaces/Time.
struct Stamp {
  int32_t sec = 0;
  uint32_t nanosec = 0;
};

constexpr int64_t kNanoseconds = 1000000000;

// Since the clock's zero.
constexpr int64_t nanoseconds_of(const Stamp& stamp) {
  return int64_t{stamp.sec} * kNanoseconds + int64_t{stamp.nanosec};
}
Stamp stamp_of(int64_t nanoseconds);

// ---- masks, poses, depth and cameras out

enum class MaskEncoding { kMono8, k32FC1 };

// What a mask has a pixel for: each of the camera's image, or each patch of the engines' image.
enum class MaskSize { kImage, kPatches };

// Whether numbers have their high byte first here.
bool machine_is_bigendian();

// Where a camera's image lies in the engines' image.
struct Region {
  uint32_t width = 0, height = 0;                // of the camera's image
  int left = 0, top = 0, right = 0, bottom = 0;  // what it covers of the engines' image, in pixels of that
  double scale[2] = {1, 1}, shift[2] = {};  // a point of the camera's image is at scale * point + shift, by its edges
};

// Throws page4d::Error, as ImageFit does.
Region region_of(int width, int height, const page4d::Layout& layout, page4d::Fit fit);

// The fields of a sensor_msgs/Image of one channel.
struct GreyImage {
  uint32_t width = 0, height = 0, step = 0;
  const char* encoding = "";
  bool is_bigendian = false;  // as on this machine
  std::vector<uint8_t> data;
};

// mask: float32 [h,w], probabilities. kMono8: 0..1 -> 0..255, rounded and clamped, 0 for NaN; k32FC1: unchanged.
GreyImage mask_image(const float* mask, int64_t h, int64_t w, MaskEncoding encoding);

// The same in the size of the camera's image: each pixel has the value of its patch, 0 where the engines did not see
// it. Patches cover the engines' image, H x W.
GreyImage mask_image(const float* mask, const page4d::Layout& layout, const Region& region, MaskEncoding encoding);

// depth: float32 [H,W]. Unchanged, as 32FC1.
GreyImage depth_image(const float* depth, int64_t H, int64_t W);

// The matrices of a sensor_msgs/CameraInfo without distortion, row by row.
struct CameraModel {
  bool valid = false;
  std::array<double, 9> k{}, r{1, 0, 0, 0, 1, 0, 0, 0, 1};
  std::array<double, 12> p{};
};

// K: 3x3, row by row, which is kept as it is: ROS reads pixel (row, column) at (column, row), as VGGT's depth is
// trained. Not valid if a value is not finite.
CameraModel camera_model_of(const double* K);

// The calibration of the camera's image as one of the engines' image; what distorts the lens stays as it is. ROS counts
// pixels from the centre of the first. Not valid if fx is not above 0: so a camera says that it is not calibrated.
CameraModel camera_model_of(const CameraModel& given, const Region& region);

// geometry_msgs/Pose.
struct Pose {
  bool valid = false;
  double position[3] = {};
  double orientation[4] = {0, 0, 0, 1};  // x, y, z, w; length 1, w >= 0
};

// matrix: 4x4, row by row, a rotation and a translation. Not valid if a value is not finite, or for a reflection.
Pose pose_of(const double* matrix);

// ---- parameters

// A parameter's value by its name. Each throws page4d::Error kUsage for a name that is not allowed.
page4d::Backend backend_of(const std::string& name);
page4d::Fit fit_of(const std::string& name);
page4d::Missing missing_of(const std::string& name);
MaskEncoding mask_encoding_of(const std::string& name);
MaskSize mask_size_of(const std::string& name);

// A side of the cameras' images; 0: the engines' own. Throws page4d::Error kUsage: below 0, or no int.
int pixels_of(int64_t value, const std::string& parameter);

}  // namespace page4d_ros
