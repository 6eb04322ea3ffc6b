// Known cameras against page4d.network.known_cameras.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "clip/camera_vectors.h"
#include "clip/known_cameras.h"
#include "support/allocations.h"
#include "support/check.h"

namespace {

using Json = nlohmann::ordered_json;

page4d::KnownCameras known_of(const Json& entry) {
  std::vector<page4d::Camera> cameras;
  for (const Json& camera : entry.at("cameras")) cameras.push_back(camera_of(camera));
  return page4d::KnownCameras(cameras);
}

void add_numbers(const Json& values, std::vector<double>& numbers) {
  if (!values.is_array()) return numbers.push_back(number_of(values));
  for (const Json& inner : values) add_numbers(inner, numbers);
}

std::vector<double> numbers_of(const Json& values) {
  std::vector<double> numbers;
  add_numbers(values, numbers);
  return numbers;
}

bool close(double actual, double expected) {
  return std::abs(actual - expected) <= 1e-12 * std::max(1.0, std::abs(expected));
}

void test_encodings_are_pythons() {
  const Json& all = vectors("known_cameras.json");
  CHECK(all.at("cases").size() > 4);
  for (const Json& entry : all.at("cases")) {
    page4d::KnownCameras known = known_of(entry);
    const std::vector<double> actual = known.encoded(all.at("H"), all.at("W")),
                              expected = numbers_of(entry.at("encoded"));
    CHECK(actual.size() == expected.size());
    for (size_t i = 0; i < actual.size(); ++i) CHECK(close(actual[i], expected[i]));
  }
}

void test_scales_are_pythons() {
  int scaled = 0;
  for (const Json& entry : vectors("known_cameras.json").at("cases")) {
    page4d::KnownCameras known = known_of(entry);
    for (const Json& estimate : entry.at("estimates")) {
      const std::vector<double> poses = numbers_of(estimate.at("camera"));
      double scale = 0;
      CHECK(allocations_of([&] { scale = known.scale(poses.data()); }) == 0);
      CHECK(close(scale, estimate.at("scale")));
      scaled += scale != 1 ? 1 : 0;
    }
  }
  CHECK(scaled > 10);
}

void test_poses_are_the_inverse_of_the_given() {
  for (const Json& entry : vectors("known_cameras.json").at("cases")) {
    const page4d::KnownCameras known = known_of(entry);
    CHECK(known.views() == static_cast<int64_t>(entry.at("cameras").size()));
    for (size_t v = 0; v < entry.at("cameras").size(); ++v) {
      const page4d::Camera camera = camera_of(entry.at("cameras")[v]);
      CHECK(std::equal(camera.K, camera.K + 9, known.K() + 9 * v));
      const double* pose = known.camera_to_world() + 16 * v;
      for (int row = 0; row < 3; ++row) {
        double moved = camera.world_to_camera[4 * row + 3];  // the camera's centre in its own frame
        for (int k = 0; k < 3; ++k) moved += camera.world_to_camera[4 * row + k] * pose[4 * k + 3];
        CHECK(std::abs(moved) < 1e-9);
      }
    }
  }
}

void test_no_pose_tells_no_scale() {
  const Json& entry = vectors("known_cameras.json").at("cases")[1];
  page4d::KnownCameras known = known_of(entry);
  std::vector<double> poses = numbers_of(entry.at("estimates")[0].at("camera"));
  std::fill(poses.begin() + 16, poses.end(), std::numeric_limits<double>::quiet_NaN());
  CHECK(known.scale(poses.data()) == 1);
}

// Of some cameras absent, encodings and scales are those of the others alone.
void test_absent_cameras_do_not_count() {
  int scaled = 0;
  for (const Json& entry : vectors("known_cameras.json").at("cases")) {
    page4d::KnownCameras known = known_of(entry);
    const auto views = static_cast<size_t>(known.views());
    for (const size_t absent : {size_t{0}, views / 2, views - 1}) {
      std::vector<uint8_t> present(views, 1);
      present[absent] = 0;
      if (absent > 1) present[1] = 0;
      std::vector<page4d::Camera> cameras;
      for (size_t v = 0; v < views; ++v)
        if (present[v] != 0) cameras.push_back(camera_of(entry.at("cameras")[v]));
      if (cameras.empty()) continue;
      page4d::KnownCameras others(cameras);
      std::vector<double> expected = others.encoded(56, 70), actual(9 * views, 7);
      CHECK(allocations_of([&] { known.encode(56, 70, present.data(), actual.data()); }) == 0);
      for (size_t v = 0, row = 0; v < views; ++v) {
        const bool is_there = present[v] != 0;
        for (size_t i = 0; i < 9; ++i) CHECK(actual[9 * v + i] == (is_there ? expected[9 * row + i] : 0));
        row += is_there ? 1 : 0;
      }
      for (const Json& estimate : entry.at("estimates")) {
        std::vector<double> poses = numbers_of(estimate.at("camera")), kept;
        for (size_t v = 0; v < views; ++v) {
          const auto pose = poses.begin() + static_cast<std::ptrdiff_t>(16 * v);
          if (present[v] != 0) kept.insert(kept.end(), pose, pose + 16);
          if (present[v] == 0) std::fill_n(pose, 16, std::numeric_limits<double>::quiet_NaN());
        }
        double scale = 0;
        CHECK(allocations_of([&] { scale = known.scale(poses.data(), present.data()); }) == 0);
        CHECK(scale == others.scale(kept.data()));
        scaled += scale != 1 ? 1 : 0;
      }
    }
  }
  CHECK(scaled > 10);
}

}  // namespace

int main() {
  test_encodings_are_pythons();
  test_scales_are_pythons();
  test_poses_are_the_inverse_of_the_given();
  test_no_pose_tells_no_scale();
  test_absent_cameras_do_not_count();
}
