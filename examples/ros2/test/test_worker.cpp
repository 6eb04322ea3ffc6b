// A worker and cameras on threads of their own, over the test backend. The argument is an engine folder.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "page4d/error.h"
#include "page4d_ros/worker.h"

namespace page4d_ros {
namespace {

constexpr int64_t kFirst = 1790000000123456789, kPeriod = 33333333;

page4d::Pipeline load(const std::string& folder) {
  page4d::Options options;
  options.backend = page4d::Backend::kTest;
  return page4d::Pipeline::load(folder, options);
}

// Options with which all images are matched, however the cameras' threads are scheduled.
page4d::RigOptions patient() {
  page4d::RigOptions options;
  options.patience = 60;
  options.pending = 1000;
  return options;
}

// Pushes images of the engines' size, each of its own colour.
void push(Worker& worker, const page4d::Layout& layout, int camera, int64_t from, int64_t to) {
  std::vector<uint8_t> pixels(static_cast<size_t>(layout.image_bytes()));
  page4d::Image image;
  image.data = pixels.data();
  image.width = static_cast<int>(layout.W);
  image.height = static_cast<int>(layout.H);
  for (int64_t time = from; time < to; ++time) {
    pixels.assign(pixels.size(), static_cast<uint8_t>(7 * time + camera));
    CHECK(worker.push(camera, image, kFirst + time * kPeriod + camera * 1000));
  }
}

template <class F>
void eventually(const F& condition) {
  for (int i = 0; i < 5000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(condition());
}

// The cloud has what the engines give, and the picture that they saw: each image has a colour of its own.
void check_cloud(const page4d::EngineInfo& info, const CameraResult& result) {
  const bool from_depth = result.depth != nullptr && result.K != nullptr;
  const bool has_points = info.output("points") != nullptr;
  CHECK((result.cloud.H > 0) == (from_depth || has_points));
  if (result.cloud.H == 0) return;
  CHECK(result.cloud.H == info.layout.H && result.cloud.W == info.layout.W);
  CHECK((result.cloud.points != nullptr) == !from_depth && result.cloud.mask == result.mask);
  CHECK(result.cloud.confidence != nullptr && result.cloud.is_logit == !from_depth);
  const int64_t time = std::llround(static_cast<double>(result.stamp - kFirst) / static_cast<double>(kPeriod));
  CHECK(result.cloud.image[0] == static_cast<uint8_t>(7 * time + result.camera));
  const Cloud cloud = cloud_of(result.cloud, {});
  CHECK(cloud.data.size() == static_cast<size_t>(info.layout.H * info.layout.W) * kPointBytes);
}

void results_are_of_the_last_timestep(page4d::Pipeline& pipeline) {
  const page4d::Layout layout = pipeline.info().layout;
  std::mutex mutex;
  std::set<std::pair<int, int64_t>> stamps;
  Worker worker(pipeline, patient(), [&](const CameraResult& result) {
    CHECK((result.mask != nullptr) == (pipeline.info().output("mask") != nullptr));
    CHECK((result.pose != nullptr) == (pipeline.info().output("camera") != nullptr));
    CHECK((result.depth != nullptr) == (pipeline.info().output("depth") != nullptr));
    CHECK((result.K != nullptr) == (pipeline.info().output("intrinsics") != nullptr));
    if (result.K != nullptr) CHECK(result.K[2] * 2 == static_cast<double>(layout.W) && result.K[8] == 1);
    for (int64_t i = 0; result.depth != nullptr && i < layout.H * layout.W; ++i)
      CHECK(result.depth[i] >= 0 && result.depth[i] < 1);  // checksums
    check_cloud(pipeline.info(), result);
    const std::lock_guard lock(mutex);
    stamps.emplace(result.camera, result.stamp);
  });
  for (int64_t window = 0; window < 3; ++window) {  // one after another, so that none is dropped
    std::vector<std::thread> cameras;
    for (int camera = 0; camera < layout.V; ++camera)
      cameras.emplace_back([&, camera] { push(worker, layout, camera, window * layout.T, (window + 1) * layout.T); });
    for (std::thread& camera : cameras) camera.join();
    eventually([&] { return worker.runs().runs == window + 1; });
  }
  worker.stop();
  CHECK(worker.counts().windows == 3 && worker.counts().windows_dropped == 0 && worker.runs().failures == 0);
  CHECK(stamps.size() == static_cast<size_t>(3 * layout.V));
  for (int64_t window = 0; window < 3; ++window)
    for (int camera = 0; camera < layout.V; ++camera)
      // to the nanosecond
      CHECK(stamps.count({camera, kFirst + ((window + 1) * layout.T - 1) * kPeriod + camera * 1000}) == 1);
}

void a_slow_consumer_never_holds_a_camera_up(page4d::Pipeline& pipeline) {
  const page4d::Layout layout = pipeline.info().layout;
  std::atomic<bool> open{false};
  std::atomic<int> published{0};
  Worker worker(pipeline, patient(), [&](const CameraResult&) {
    ++published;
    while (!open) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  for (int64_t time = 0; time < 10 * layout.T; ++time)
    for (int camera = 0; camera < layout.V; ++camera) push(worker, layout, camera, time, time + 1);
  CHECK(worker.counts().windows == 10 && worker.counts().windows_dropped > 0);
  std::thread closer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    open = true;
  });
  worker.stop();  // in the middle of a window, which is finished
  closer.join();
  const int done = published;
  // a late callback
  for (int camera = 0; camera < layout.V; ++camera) push(worker, layout, camera, 10 * layout.T, 12 * layout.T);
  worker.stop();
  CHECK(published == done);
}

void what_publishing_throws_is_counted(page4d::Pipeline& pipeline) {
  const page4d::Layout layout = pipeline.info().layout;
  Worker worker(pipeline, patient(), [](const CameraResult&) { throw std::runtime_error("the context is gone"); });
  for (int64_t time = 0; time < layout.T; ++time)
    for (int camera = 0; camera < layout.V; ++camera) push(worker, layout, camera, time, time + 1);
  eventually([&] { return worker.runs().failures == 1; });
  CHECK(worker.runs().failure == "the context is gone");
}

void requirements(const page4d::EngineInfo& info) {
  const auto refusal = [&](const page4d::EngineInfo& engines, size_t cameras) -> std::string {
    try {
      Worker::require(engines, cameras);
    } catch (const page4d::Error& error) {
      return error.reason();
    }
    return "";
  };
  const auto views = static_cast<size_t>(info.layout.V);
  CHECK(refusal(info, views).empty());
  CHECK(refusal(info, views + 1) == "parameter cameras does not go with the engines");
  page4d::EngineInfo other = info;
  other.outputs.clear();
  CHECK(refusal(other, views) ==
        "the engines give neither masks nor poses nor depth nor points: there is nothing to publish");
  other = info;
  other.inputs.push_back({"keypoints", page4d::DType::kFloat32, {}, 0});
  CHECK(refusal(other, views) == "these engines were exported with --keypoints and need them");
}

}  // namespace
}  // namespace page4d_ros

int main(int argc, char** argv) {
  CHECK(argc == 2);
  page4d::Pipeline pipeline = page4d_ros::load(argv[1]);
  page4d_ros::requirements(pipeline.info());
  page4d_ros::results_are_of_the_last_timestep(pipeline);
  page4d_ros::a_slow_consumer_never_holds_a_camera_up(pipeline);
  page4d_ros::what_publishing_throws_is_counted(pipeline);
  std::puts("the worker does what it should");
  return 0;
}
