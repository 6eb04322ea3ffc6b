// Cameras and points in the world against page4d.network.poses.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "clip/camera_vectors.h"
#include "clip/poses.h"
#include "support/allocations.h"
#include "support/check.h"

namespace {

using Json = nlohmann::ordered_json;

using page4d::PoseDirection;
constexpr PoseDirection kWorldToCamera = PoseDirection::kWorldToCamera;
constexpr double kEps = std::numeric_limits<double>::epsilon();

std::vector<float> floats_of(const Json& values) {
  std::vector<float> floats;
  if (values.is_array()) {
    for (const Json& inner : values)
      for (const float value : floats_of(inner)) floats.push_back(value);
  } else {
    floats.push_back(static_cast<float>(number_of(values)));
  }
  return floats;
}

// Calls `check` with each actual value and the expected one; null stands for NaN, or for `count` values of NaN.
template <class Value, class Check>
void compare(const Value* actual, size_t count, const Json& expected, const Check& check) {
  for (size_t i = 0; expected.is_array() && i < expected.size(); ++i)
    compare(actual + i * (count / expected.size()), count / expected.size(), expected[i], check);
  if (expected.is_array()) return;
  CHECK(expected.is_null() || count == 1);
  for (size_t i = 0; i < count; ++i) {
    if (expected.is_null())
      CHECK(std::isnan(actual[i]));
    else
      check(actual[i], expected.get<double>());
  }
}

size_t nulls_of(const Json& values) {
  if (!values.is_array()) return values.is_null() ? 1 : 0;
  size_t nulls = 0;
  for (const Json& inner : values) nulls += nulls_of(inner);
  return nulls;
}

void test_poses_are_pythons() {
  const struct {
    const char *numbers, *pose;
    PoseDirection direction;
    double tolerance;
  } kinds[] = {{"row_numbers", "row_pose", kWorldToCamera, 1e-12},  // another library's decomposition
               {"quaternion_numbers", "quaternion_pose", kWorldToCamera, 4 * kEps},
               {"quaternion_numbers", "quaternion_pose_to_world", PoseDirection::kCameraToWorld, 4 * kEps}};
  for (const auto& kind : kinds) {
    const Json &rows = vectors("poses.json").at(kind.numbers), &expected = vectors("poses.json").at(kind.pose);
    const std::vector<float> numbers = floats_of(rows);
    std::vector<double> poses(rows.size() * 16, 7.0);
    CHECK(allocations_of([&] {
            page4d::camera_to_world(numbers.data(), static_cast<int64_t>(rows[0].size()),
                                    static_cast<int64_t>(rows.size()), kind.direction, poses.data());
          }) == 0);
    compare(poses.data(), poses.size(), expected, [&](double actual, double value) {
      CHECK(std::abs(actual - value) <= kind.tolerance * std::max(1.0, std::abs(value)));
    });
    CHECK(nulls_of(expected) >= 2 && nulls_of(expected) < rows.size());
  }
}

void test_intrinsics_are_pythons() {
  const Json &rows = vectors("poses.json").at("quaternion_numbers"), &expected = vectors("poses.json").at("K");
  const std::vector<float> numbers = floats_of(rows);
  std::vector<double> K(rows.size() * 9, 7.0);
  CHECK(allocations_of([&] {
          page4d::intrinsics(numbers.data(), static_cast<int64_t>(rows.size()), vectors("poses.json").at("H"),
                             vectors("poses.json").at("W"), K.data());
        }) == 0);
  compare(K.data(), K.size(), expected, [](double actual, double value) {
    CHECK(std::abs(actual - value) <= 4 * kEps * std::abs(value));  // the tangent may be another library's
  });
  CHECK(nulls_of(expected) > 3 && nulls_of(expected) < rows.size());
}

// Float32 of what Python computes in float64.
void test_points_in_the_world_are_pythons() {
  size_t broken = 0;
  for (const Json& entry : vectors("poses.json").at("world")) {
    const bool from_depth = entry.contains("depth");
    const Json& shape = entry.at(from_depth ? "depth" : "points");
    const std::vector<float> values = floats_of(shape);
    const auto matrix = [&](const char* name, size_t count) {
      std::vector<double> numbers(count, std::numeric_limits<double>::quiet_NaN());
      if (!entry.contains(name) || entry.at(name).is_null()) return numbers;
      numbers.clear();
      for (const Json& row : entry.at(name))
        for (const Json& value : row) numbers.push_back(number_of(value));
      return numbers;
    };
    const std::vector<double> pose = matrix("pose", 16), K = matrix("K", 9);
    const auto H = static_cast<int64_t>(shape.size()), W = static_cast<int64_t>(shape[0].size());
    std::vector<float> world(from_depth ? values.size() * 3 : values.size(), 7.0F);
    CHECK(allocations_of([&] {
            if (from_depth)
              page4d::unproject(values.data(), K.data(), pose.data(), H, W, world.data());
            else
              page4d::to_world(values.data(), pose.data(), H, world.data());
          }) == 0);
    compare(world.data(), world.size(), entry.at("world_points"), [](float actual, double value) {
      CHECK(std::abs(actual - static_cast<float>(value)) <= 1e-6F * std::abs(actual) + 1e-15F);
    });
    broken += std::isnan(world.front()) ? 1 : 0;
  }
  CHECK(broken == 3);  // no pose: two cases; no focal length: one
}

// Rows without a nearest rotation give a rotation, too.
void test_any_finite_numbers_give_a_rotation() {
  const float inputs[3][12] = {
      {1, 2, 3}, {1, 2, 3, 1, 2, 3, 2, 4, 6, 3, 6, 9}, {1, 2, 3, -1, 0, 0, 0, -1, 0, 0, 0, -1}};
  for (const float (&encoded)[12] : inputs) {
    double pose[16];
    page4d::camera_to_world(encoded, 12, 1, kWorldToCamera, pose);
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        double dot = 0;
        for (int k = 0; k < 3; ++k) dot += pose[i * 4 + k] * pose[j * 4 + k];
        CHECK(std::abs(dot - (i == j ? 1 : 0)) < 1e-12);
      }
    const auto minor = [&](int a, int b) { return pose[4 + a] * pose[8 + b] - pose[4 + b] * pose[8 + a]; };
    CHECK(std::abs(pose[0] * minor(1, 2) - pose[1] * minor(0, 2) + pose[2] * minor(0, 1) - 1) < 1e-12);
    CHECK(pose[3] == 1 && pose[7] == 2 && pose[11] == 3 && pose[12] == 0 && pose[13] == 0 && pose[14] == 0 &&
          pose[15] == 1);
  }
}

void test_infinity_leaves_no_pose() {
  for (const int size : {12, 9}) {
    for (int at = 0; at < size; ++at) {
      float encoded[12] = {1, 2, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1};
      double pose[16] = {};
      page4d::camera_to_world(encoded, size, 1, kWorldToCamera, pose);
      for (const double value : pose) CHECK(std::isfinite(value));
      encoded[at] = -std::numeric_limits<float>::infinity();
      page4d::camera_to_world(encoded, size, 1, kWorldToCamera, pose);
      for (const double value : pose) CHECK(std::isnan(value));
    }
  }
}

}  // namespace

int main() {
  test_poses_are_pythons();
  test_intrinsics_are_pythons();
  test_points_in_the_world_are_pythons();
  test_any_finite_numbers_give_a_rotation();
  test_infinity_leaves_no_pose();
}
