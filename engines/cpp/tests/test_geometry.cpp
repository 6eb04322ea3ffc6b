// Points in the world: of every model's results, from every source, and what is refused.
#include <cmath>
#include <vector>

#include "page4d/geometry.h"
#include "runtime/output_names.h"
#include "support/allocations.h"
#include "support/folder.h"

using namespace page4d;

namespace {

const std::filesystem::path kFolder = "engines of test_geometry";

// A window of a golden plan, over the test backend.
struct Window {
  explicit Window(const std::string& plan)
      : pipeline((write_folder(kFolder, plan_named(plan)), Pipeline::load(kFolder.string(), options()))),
        results(pipeline.info()) {
    std::vector<unsigned char> pixels(static_cast<size_t>(layout().image_bytes()));
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<unsigned char>(i * 31);
    const std::vector<Image> images(static_cast<size_t>(layout().images()),
                                    {pixels.data(), static_cast<int>(layout().W), static_cast<int>(layout().H)});
    CHECK_TEXT(pipeline.run({images.data()}, results.outputs()).message, "");
  }

  static Options options() {
    Options options;
    options.backend = Backend::kTest;
    return options;
  }
  const Layout& layout() const { return pipeline.info().layout; }

  std::vector<float> world(PointsSource source) const {
    std::vector<float> points(static_cast<size_t>(layout().images() * layout().H * layout().W) * 3, 7.0F);
    CHECK(allocations_of([&] { world_points(pipeline.info(), results.outputs(), points.data(), source); }) == 0);
    return points;
  }

  Pipeline pipeline;
  Results results;
};

// To the bit: NaN equals NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A point of the world in a camera's frame.
void to_camera(const double* pose, const float* world, double* point) {
  for (int i = 0; i < 3; ++i) {
    point[i] = 0;
    for (int k = 0; k < 3; ++k) point[i] += pose[4 * k + i] * (static_cast<double>(world[k]) - pose[4 * k + 3]);
  }
}

// Calls `check` with the image, the row, the column and the point in that image's camera.
template <class Check>
void for_each_pixel(const Window& window, const std::vector<float>& world, const Check& check) {
  const Layout& layout = window.layout();
  const float* point = world.data();
  for (int64_t i = 0; i < layout.images(); ++i)
    for (int64_t v = 0; v < layout.H; ++v)
      for (int64_t u = 0; u < layout.W; ++u, point += 3) {
        double in_camera[3];
        to_camera(window.results.camera() + i * 16, point, in_camera);
        check(i, v, u, in_camera);
      }
}

// They lie on the rays of their pixels, at their depth.
void test_from_depth(const Window& window) {
  int64_t finite = 0;
  for_each_pixel(window, window.world(PointsSource::kDepth), [&](int64_t i, int64_t v, int64_t u, const double* point) {
    const Layout& layout = window.layout();
    const double* K = window.results.intrinsics() + i * 9;
    const auto depth = static_cast<double>(window.results.depth()[(i * layout.H + v) * layout.W + u]);
    if (std::isnan(K[0]) || std::isnan(K[4])) {  // a checksum of 0 is no field of view
      CHECK(std::isnan(point[0]) && std::isnan(point[1]) && std::isnan(point[2]));
      return;
    }
    ++finite;
    CHECK(std::abs(point[2] - depth) < 1e-5);
    CHECK(std::abs(K[0] * point[0] + K[2] * point[2] - depth * static_cast<double>(u)) < 1e-4 * K[0]);
    CHECK(std::abs(K[4] * point[1] + K[5] * point[2] - depth * static_cast<double>(v)) < 1e-4 * K[4]);
  });
  CHECK(2 * finite > window.layout().images() * window.layout().H * window.layout().W);
}

void test_models_with_depth(const char* plan) {
  const Window window(plan);
  const EngineInfo& info = window.pipeline.info();
  CHECK(info.points_frame == PointsFrame::kWorld);
  CHECK(info.output("intrinsics")->shape.back() == 3 && info.output("intrinsics")->dtype == DType::kFloat64);
  test_from_depth(window);
  CHECK(same(window.world(PointsSource::kBest), window.world(PointsSource::kDepth)));
  const std::vector<float> points = window.world(PointsSource::kPoints);
  CHECK(std::memcmp(points.data(), window.results.points(), info.output("points")->bytes) == 0);
}

void test_points_of_cameras() {
  const Window window("pi3");
  CHECK(window.pipeline.info().points_frame == PointsFrame::kCamera);
  CHECK(window.pipeline.info().output("intrinsics") == nullptr && window.results.intrinsics() == nullptr);
  const std::vector<float> world = window.world(PointsSource::kBest);
  for_each_pixel(window, world, [&](int64_t i, int64_t v, int64_t u, const double* point) {
    const float* expected = window.results.points() + ((i * window.layout().H + v) * window.layout().W + u) * 3;
    for (int k = 0; k < 3; ++k) CHECK(std::abs(point[k] - static_cast<double>(expected[k])) < 1e-5);
  });
  CHECK(same(world, window.world(PointsSource::kPoints)));
}

void test_a_manifest_without_a_frame_is_pi3s() {
  auto manifest = plan_named("pi3");
  manifest.erase("points_frame");
  write_folder(kFolder, manifest);
  CHECK(inspect(kFolder.string()).points_frame == PointsFrame::kCamera);
  write_folder(kFolder, plan_named("default"));
  CHECK(!inspect(kFolder.string()).points_frame);
}

// The texts are those of Python's UsageError; what to do about it is another program's.
void test_refusals() {
  float number = 0;
  const auto without_hint = [](const std::string& text) { return text.substr(0, text.find("\n  try:")); };
  EngineInfo info;
  info.layout = {1, 1, 14, 14, 1};
  CHECK(vectors("poses.json").at("refused").size() > 30);
  for (const auto& entry : vectors("poses.json").at("refused")) {
    Outputs outputs;
    for (const auto& name : entry.at("outputs"))
      outputs.*output_called(name.get<std::string>()) = {&number, sizeof number, Memory::kHost};
    info.points_frame = entry.at("frame") == "world" ? PointsFrame::kWorld : PointsFrame::kCamera;
    const PointsSource source = entry.at("source").is_null()    ? PointsSource::kBest
                                : entry.at("source") == "depth" ? PointsSource::kDepth
                                                                : PointsSource::kPoints;
    const std::string text = refusal([&] { world_points(info, outputs, &number, source); });
    CHECK_TEXT(without_hint(text), without_hint(entry.at("text")));
    const bool has_other_source =
        text.find("points from points") != std::string::npos || text.find("points from depth") != std::string::npos;
    CHECK(has_other_source || text.find("and memory for these outputs") != std::string::npos);
  }
  Outputs outputs;
  outputs.depth = outputs.camera = outputs.intrinsics = {&number, sizeof number, Memory::kHost};
  outputs.depth.memory = Memory::kDevice;
  CHECK_TEXT(refusal([&] { world_points(info, outputs, &number); }),
             "points in the world are computed on the host, and depth is not there\n  got:     device memory\n  "
             "allowed: host memory");
}

}  // namespace

int main() {
  for (const char* plan : {"vggt float16", "vggt bfloat16 B=2", "page4d 2026"}) test_models_with_depth(plan);
  test_points_of_cameras();
  test_a_manifest_without_a_frame_is_pi3s();
  test_refusals();
  std::filesystem::remove_all(kFolder);
}
