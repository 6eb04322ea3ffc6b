// Point clouds, without ROS and without the library's engines.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "page4d_ros/cloud.h"

namespace page4d_ros {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float field(const Cloud& cloud, size_t point, const char* name) {
  for (const CloudField& entry : kCloudFields) {
    if (std::string(entry.name) != name) continue;
    float value;
    std::memcpy(&value, cloud.data.data() + point * cloud.point_step + entry.offset, sizeof(value));
    return value;
  }
  CHECK(false);
  return 0;
}

bool is_left_out(const Cloud& cloud, size_t point) {
  const bool none = std::isnan(field(cloud, point, "x"));
  CHECK(none == std::isnan(field(cloud, point, "y")) && none == std::isnan(field(cloud, point, "z")));
  return none;
}

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// An image of 2 rows and 4 columns with rows of 16 bytes; its points are 1, 2, 3 and so on.
struct Example {
  std::vector<float> points, depth = std::vector<float>(8, 2), confidence = std::vector<float>(8, 0);
  std::vector<uint8_t> image = std::vector<uint8_t>(32, 255);
  double K[9] = {4, 0, 1.5, 0, 5, 0.5, 0, 0, 1};

  Example() {
    for (int i = 0; i < 24; ++i) points.push_back(static_cast<float>(i + 1));
    for (size_t row = 0; row < 2; ++row)
      for (size_t byte = 0; byte < 12; ++byte) image[16 * row + byte] = static_cast<uint8_t>(16 * row + byte);
  }

  CloudSource source() const {
    CloudSource source;
    source.H = 2, source.W = 4;
    source.image = image.data();
    source.row_bytes = 16;
    return source;
  }
};

void points_have_a_place_for_every_pixel() {
  const Example example;
  CloudSource source = example.source();
  source.points = example.points.data();
  const Cloud cloud = cloud_of(source, {});
  CHECK(cloud.width == 4 && cloud.height == 2 && cloud.point_step == 24 && cloud.row_step == 96 && !cloud.is_dense);
  CHECK(cloud.data.size() == 2 * 96);
  for (size_t point = 0; point < 8; ++point) {
    CHECK(field(cloud, point, "x") == static_cast<float>(3 * point + 1));
    CHECK(field(cloud, point, "z") == static_cast<float>(3 * point + 3));
    CHECK(field(cloud, point, "confidence") == 1 && field(cloud, point, "dynamic") == 0);
  }
  CHECK(bits_of(field(cloud, 0, "rgb")) == 0x000102U && bits_of(field(cloud, 5, "rgb")) == 0x131415U);
}

void fields_are_one_after_the_other() {
  uint32_t end = 0;
  for (const CloudField& entry : kCloudFields) {
    CHECK(entry.offset == end);
    end += 4;
  }
  CHECK(end == kPointBytes);
}

void depth_becomes_points_of_the_camera() {
  Example example;
  example.K[1] = 0.5;  // a skew
  example.depth[3] = 0, example.depth[4] = -1, example.depth[5] = kNaN;
  CloudSource source = example.source();
  source.depth = example.depth.data();
  source.K = example.K;
  const Cloud cloud = cloud_of(source, {});
  for (size_t point = 0; point < 8; ++point) {
    if (point >= 3 && point <= 5) {
      CHECK(is_left_out(cloud, point));
      continue;
    }
    const double x = field(cloud, point, "x"), y = field(cloud, point, "y"), z = field(cloud, point, "z");
    CHECK(z == 2);  // and back to its pixel
    CHECK(std::abs((4 * x + 0.5 * y) / z + 1.5 - static_cast<double>(point % 4)) < 1e-6);
    CHECK(std::abs(5 * y / z + 0.5 - static_cast<double>(point / 4)) < 1e-6);
  }
  example.K[0] = std::nan("");
  const Cloud none = cloud_of(source, {});
  for (size_t point = 0; point < 8; ++point) CHECK(is_left_out(none, point));
}

void logits_are_probabilities() {
  Example example;
  example.confidence = {-9, 0, 9, 0, 0, 0, kNaN, 0};
  CloudSource source = example.source();
  source.points = example.points.data();
  source.confidence = example.confidence.data();
  source.is_logit = true;
  const Cloud cloud = cloud_of(source, {0.5, 99});
  CHECK(is_left_out(cloud, 0) && !is_left_out(cloud, 1) && !is_left_out(cloud, 2) && is_left_out(cloud, 6));
  CHECK(field(cloud, 1, "confidence") == 0.5F && std::abs(field(cloud, 2, "confidence") - 0.99987661F) < 1e-6F);
  const Cloud all = cloud_of(source, {});
  CHECK(!is_left_out(all, 0));
}

void other_confidences_are_compared_within_their_image() {
  Example example;
  example.confidence = {8, 7, 6, 5, 4, 3, kNaN, 2};
  CloudSource source = example.source();
  source.points = example.points.data();
  source.confidence = example.confidence.data();
  const auto kept = [&](double percentile) {
    const Cloud cloud = cloud_of(source, {0.5, percentile});
    int count = 0;
    for (size_t point = 0; point < 8; ++point) count += !is_left_out(cloud, point);
    return count;
  };
  CHECK(kept(0) == 7 && kept(50) == 4 && kept(100) == 1);
  CHECK(field(cloud_of(source, {}), 1, "confidence") == 7);
  example.confidence.assign(8, kNaN);
  CHECK(kept(50) == 0);
}

void the_mask_is_that_of_the_patch() {
  const Example example;
  const float mask[2] = {0.25F, 0.75F};  // patches of 2 x 2 pixels
  CloudSource source = example.source();
  source.points = example.points.data();
  source.mask = mask;
  source.h = 1, source.w = 2;
  const Cloud cloud = cloud_of(source, {});
  for (size_t point = 0; point < 8; ++point) CHECK(field(cloud, point, "dynamic") == mask[point % 4 / 2]);
}

}  // namespace
}  // namespace page4d_ros

int main() {
  page4d_ros::points_have_a_place_for_every_pixel();
  page4d_ros::fields_are_one_after_the_other();
  page4d_ros::depth_becomes_points_of_the_camera();
  page4d_ros::logits_are_probabilities();
  page4d_ros::other_confidences_are_compared_within_their_image();
  page4d_ros::the_mask_is_that_of_the_patch();
  std::puts("all clouds are right");
  return 0;
}
