// Camera poses against page4d.poses.
#include <cmath>
#include <vector>

#include "clip/camera_vectors.h"
#include "clip/poses.h"
#include "support/allocations.h"
#include "support/check.h"

namespace {

void test_poses_are_pythons() {
  const nlohmann::ordered_json known = vectors("poses.json");
  const nlohmann::ordered_json& rows = known.at("numbers");
  std::vector<float> encoded;
  for (const auto& row : rows)
    for (const auto& value : row) encoded.push_back(static_cast<float>(number_of(value)));
  std::vector<double> poses(rows.size() * 16, 7.0);
  CHECK(allocations_of(
            [&] { page4d::camera_to_world(encoded.data(), 12, static_cast<int64_t>(rows.size()), poses.data()); }) == 0);
  size_t broken = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const nlohmann::ordered_json& pose = known.at("pose").at(i);
    broken += pose.is_null() ? 1 : 0;
    for (size_t row = 0; row < 4; ++row)
      for (size_t column = 0; column < 4; ++column) {
        const double value = poses[i * 16 + row * 4 + column];
        if (pose.is_null())
          CHECK(std::isnan(value));
        else
          CHECK(std::abs(value - pose.at(row).at(column).get<double>()) < 1e-12);
      }
  }
  CHECK(broken >= 2 && broken < rows.size());
}

// Rows without a nearest rotation give a rotation, too.
void test_any_finite_numbers_give_a_rotation() {
  const float inputs[3][12] = {
      {1, 2, 3}, {1, 2, 3, 1, 2, 3, 2, 4, 6, 3, 6, 9}, {1, 2, 3, -1, 0, 0, 0, -1, 0, 0, 0, -1}};
  for (const float (&encoded)[12] : inputs) {
    double pose[16];
    page4d::camera_to_world(encoded, 12, 1, pose);
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
  for (int at = 0; at < 12; ++at) {
    float encoded[12] = {1, 2, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1};
    encoded[at] = -std::numeric_limits<float>::infinity();
    double pose[16] = {};
    page4d::camera_to_world(encoded, 12, 1, pose);
    for (const double value : pose) CHECK(std::isnan(value));
  }
}

}  // namespace

int main() {
  test_poses_are_pythons();
  test_any_finite_numbers_give_a_rotation();
  test_infinity_leaves_no_pose();
}
