// Checks of cameras and fundamental matrices against page4d.cameras.
#include <cmath>
#include <vector>

#include "clip/camera_vectors.h"
#include "clip/cameras.h"
#include "support/check.h"

namespace {

using page4d::Camera;

void test_fundamental_matrices_are_pythons() {
  const nlohmann::ordered_json known = vectors("fundamental.json");
  std::vector<Camera> cameras;
  for (const auto& entry : known.at("cameras")) cameras.push_back(camera_of(entry));
  CHECK(cameras.size() > 3);
  const std::vector<double> actual = page4d::fundamental(cameras);
  CHECK(actual.size() == cameras.size() * cameras.size() * 9);
  size_t i = 0, zeros = 0;
  for (const auto& row : known.at("fundamental"))
    for (const auto& matrix : row)
      for (const auto& line : matrix)
        for (const double expected : line) {
          zeros += expected == 0 ? 1 : 0;
          CHECK(expected != 0 || std::abs(actual[i]) < 1e-15);
          CHECK(std::abs(expected - actual[i]) < 1e-12);
          ++i;
        }
  CHECK(i == actual.size());
  CHECK(zeros >= cameras.size() * 9 + 4 * 9);  // each with itself; two pairs at one centre, both ways
}

// A point that both cameras see lies on its line.
void test_lines_pass_through_the_point() {
  const nlohmann::ordered_json known = vectors("fundamental.json");
  const Camera a = camera_of(known.at("cameras").at(0)), b = camera_of(known.at("cameras").at(1));
  const double point[4] = {0.5, -0.75, 4, 1};
  const auto pixel = [&](const Camera& camera, double (&seen)[3]) {
    double local[3] = {}, image[3] = {};
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 4; ++j) local[i] += camera.world_to_camera[i * 4 + j] * point[j];
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) image[i] += camera.K[i * 3 + j] * local[j];
    for (int i = 0; i < 3; ++i) seen[i] = image[i] / image[2];
  };
  double in_a[3], in_b[3], sum = 0;
  pixel(a, in_a);
  pixel(b, in_b);
  const std::vector<double> actual = page4d::fundamental({a, b});
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) sum += in_b[i] * actual[static_cast<size_t>(9 + i * 3 + j)] * in_a[j];
  CHECK(std::abs(sum) < 1e-9);
}

void test_refusals_are_pythons() {
  const nlohmann::ordered_json known = vectors("fundamental.json");
  for (const auto& entry : known.at("refused")) {
    const Camera camera = camera_of(entry.at("camera"));
    const std::string name = entry.at("name");
    CHECK_TEXT(first_line(refusal([&] { page4d::check(camera, name); })), first_line(entry.at("text")));
  }
  for (const auto& entry : known.at("cameras")) {
    const Camera camera = camera_of(entry);
    CHECK_TEXT(refusal([&] { page4d::check(camera, "0"); }), "nothing is thrown");
  }
}

void test_infinity_is_refused() {
  Camera camera = camera_of(vectors("fundamental.json").at("cameras").at(0));
  camera.K[2] = -std::numeric_limits<double>::infinity();
  CHECK(refusal([&] {
          page4d::check(camera, "0");
        }).find("camera 0: K has the wrong shape or holds no finite numbers\n  got:     [[500.0, 0.0, -inf]") == 0);
}

}  // namespace

int main() {
  test_fundamental_matrices_are_pythons();
  test_lines_pass_through_the_point();
  test_refusals_are_pythons();
  test_infinity_is_refused();
}
