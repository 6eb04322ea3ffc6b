// Between the fields of ROS messages and page4d's types; needs nothing of ROS, and of page4d the headers only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "page4d/image.h"
#include "page4d/pipeline.h"
#include "page4d/rig.h"

namespace page4d_ros {

// ---- images in

// The fields of a sensor_msgs/Image; the data stay the message's.
struct ImageFields {
  uint32_t width = 0, height = 0;
  uint32_t step = 0;  // bytes from a row to the next
  std::string encoding;
  bool is_bigendian = false;  // says nothing about a channel of one byte, and there are no others here
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// Encodings rgb8, bgr8, rgba8, bgra8 and mono8. Throws page4d::Error kUsage: another encoding, no pixels, a step
// shorter than a row, fewer data than height x step.
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

// Seconds since the first stamp that came. A double has no room for nanoseconds since 1970; since a start of one's own
// it has, for weeks.
class Start {
 public:
  // The first call sets the start. Any thread.
  double seconds(int64_t nanoseconds) noexcept;
  // The way back, to the very nanosecond. `seconds` has given a number before, and so it is finite.
  int64_t nanoseconds(double seconds) const noexcept;

 private:
  static constexpr int64_t kUnset = std::numeric_limits<int64_t>::min();  // no stamp: theirs have 62 bits at most
  std::atomic<int64_t> start_{kUnset};
};

// ---- masks and poses out

enum class MaskEncoding { kMono8, k32FC1 };

// The fields of a sensor_msgs/Image of one channel.
struct MaskImage {
  uint32_t width = 0, height = 0, step = 0;
  const char* encoding = "";
  bool is_bigendian = false;  // as this machine is
  std::vector<uint8_t> data;
};

// mask: float32 [h,w], probabilities. kMono8: 0..1 -> 0..255, rounded and clamped, 0 for NaN; k32FC1: the numbers
// themselves.
MaskImage mask_image(const float* mask, int64_t h, int64_t w, MaskEncoding encoding);

// geometry_msgs/Pose.
struct Pose {
  bool valid = false;
  double position[3] = {};
  double orientation[4] = {0, 0, 0, 1};  // x, y, z, w; length 1, w >= 0
};

// matrix: 4x4, row by row, a rotation and a translation. Not valid: a number that is not finite, or a mirroring.
Pose pose_of(const double* matrix);

// ---- parameters

// Each throws page4d::Error kUsage for a word that is not allowed.
page4d::Backend backend_of(const std::string& word);
page4d::Fit fit_of(const std::string& word);
page4d::Missing missing_of(const std::string& word);
MaskEncoding mask_encoding_of(const std::string& word);

// A side of the cameras' images; 0: the engines' own. Throws page4d::Error kUsage: below 0, or no int.
int pixels_of(int64_t value, const std::string& parameter);

}  // namespace page4d_ros
