// A thread that runs the windows of a rig as they become ready; needs nothing of ROS.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "page4d/pipeline.h"
#include "page4d/rig.h"
#include "page4d_ros/conversion.h"

namespace page4d_ros {

// Of one camera at a window's last time. What is pointed to is valid during the call that gives it.
struct CameraResult {
  int camera = 0;
  // nanoseconds, of the camera's image at that time; of an older one that stands in, its own
  int64_t stamp = 0;
  const float* mask = nullptr;   // [h,w]; null where the engines give none
  const double* pose = nullptr;  // 4x4, camera to world; null where the engines give none
};

struct RunCounts {
  int64_t runs = 0, failures = 0;
  double seconds = 0;   // of the last run
  std::string failure;  // in words, of the last run that failed
};

// The pipeline is used by the worker's thread alone, from the worker's making until `stop` has returned, and must live
// as long.
class Worker {
 public:
  // publish is called on the worker's thread, once for each camera that has an image in the window; what it throws
  // counts as a failure.
  using Publish = std::function<void(const CameraResult&)>;

  // Throws page4d::Error kUsage where these engines cannot serve these cameras: another number of views, an input that
  // no camera gives, nothing to publish.
  static void require(const page4d::EngineInfo& info, size_t cameras);

  // Throws page4d::Error kUsage, as Rig does.
  Worker(page4d::Pipeline& pipeline, const page4d::RigOptions& options, Publish publish);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // One thread per camera at a time. Waits for no window. stamp: nanoseconds on one clock for all cameras.
  page4d::Status push(int camera, const page4d::Image& image, int64_t stamp) noexcept;
  // Returns when the window under way is done; nothing is published after it. May be called again.
  void stop() noexcept;

  page4d::RigCounts counts() const noexcept { return rig_.counts(); }
  page4d::CameraCounts counts(int camera) const noexcept { return rig_.counts(camera); }
  RunCounts runs() const;

 private:
  void loop();
  void run(const page4d::Window& window);
  void failed(const std::string& failure);

  page4d::Pipeline& pipeline_;
  const page4d::Layout layout_;
  page4d::Rig rig_;
  Publish publish_;
  Start start_;

  std::vector<float> mask_;     // [T,V,h,w]; empty: the engines give none
  std::vector<double> camera_;  // [T,V,4,4]
  std::vector<unsigned char> memory_, next_memory_;
  bool remembers_ = false;  // whether memory_ holds what a window left
  bool has_run_ = false;    // whether the window taken before did

  mutable std::mutex mutex_;
  std::condition_variable woken_;
  bool ready_ = false, stopping_ = false;
  RunCounts runs_;
  std::thread thread_;  // last: it runs on all of the above
};

}  // namespace page4d_ros
