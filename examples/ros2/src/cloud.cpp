#include "page4d_ros/cloud.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "page4d_ros/conversion.h"

namespace page4d_ros {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

float sigmoid(float logit) { return 1 / (1 + std::exp(-logit)); }

// The value that `percentile` percent of the finite ones lie below.
float percentile_of(const float* values, size_t count, double percentile) {
  std::vector<float> finite;
  finite.reserve(count);
  std::copy_if(values, values + count, std::back_inserter(finite), [](float value) { return std::isfinite(value); });
  if (finite.empty()) return -std::numeric_limits<float>::infinity();
  const double place = std::clamp(percentile, 0.0, 100.0) / 100 * static_cast<double>(finite.size() - 1);
  const auto middle = finite.begin() + static_cast<std::ptrdiff_t>(std::lround(place));
  std::nth_element(finite.begin(), middle, finite.end());
  return *middle;
}

// False if there is no point.
bool point_of(const CloudSource& source, int64_t row, int64_t column, float* point) {
  const auto pixel = static_cast<size_t>(row * source.W + column);
  if (source.points != nullptr) {
    std::copy(source.points + 3 * pixel, source.points + 3 * pixel + 3, point);
  } else {
    const double z = source.depth[pixel];
    if (!(z > 0)) return false;
    const double y = (static_cast<double>(row) - source.K[5]) / source.K[4] * z;
    const double x = (static_cast<double>(column) - source.K[2] - source.K[1] * y / z) / source.K[0] * z;
    point[0] = static_cast<float>(x), point[1] = static_cast<float>(y), point[2] = static_cast<float>(z);
  }
  return std::isfinite(point[0]) && std::isfinite(point[1]) && std::isfinite(point[2]);
}

float colour_of(const uint8_t* pixel) {
  const uint32_t bits = uint32_t{pixel[0]} << 16 | uint32_t{pixel[1]} << 8 | pixel[2];
  float colour;
  std::memcpy(&colour, &bits, sizeof(colour));
  return colour;
}

}  // namespace

Cloud cloud_of(const CloudSource& source, const CloudLimits& limits) {
  const auto count = static_cast<size_t>(source.H * source.W);
  Cloud cloud;
  cloud.width = static_cast<uint32_t>(source.W);
  cloud.height = static_cast<uint32_t>(source.H);
  cloud.row_step = cloud.width * kPointBytes;
  cloud.is_bigendian = machine_is_bigendian();
  cloud.data.resize(count * kPointBytes);
  float least = -std::numeric_limits<float>::infinity();
  if (source.confidence != nullptr && source.is_logit)
    least = static_cast<float>(limits.probability);
  else if (source.confidence != nullptr && limits.percentile > 0)
    least = percentile_of(source.confidence, count, limits.percentile);
  for (int64_t row = 0; row < source.H; ++row) {
    for (int64_t column = 0; column < source.W; ++column) {
      const auto pixel = static_cast<size_t>(row * source.W + column);
      float fields[6] = {kNone, kNone, kNone, 0, 1, 0};
      if (source.confidence != nullptr)
        fields[4] = source.is_logit ? sigmoid(source.confidence[pixel]) : source.confidence[pixel];
      float point[3];
      if (fields[4] >= least && point_of(source, row, column, point)) std::copy(point, point + 3, fields);
      if (source.image != nullptr)
        fields[3] =
            colour_of(source.image + static_cast<size_t>(row) * source.row_bytes + 3 * static_cast<size_t>(column));
      if (source.mask != nullptr)
        fields[5] = source.mask[(row * source.h / source.H) * source.w + column * source.w / source.W];
      std::memcpy(cloud.data.data() + pixel * kPointBytes, fields, kPointBytes);
    }
  }
  return cloud;
}

}  // namespace page4d_ros
