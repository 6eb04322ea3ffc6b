// A thread that runs the windows of a rig as they become ready. Needs no ROS.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "page4d/pipeline.h"
#include "page4d/rig.h"
#include "page4d_ros/cloud.h"
#include "page4d_ros/conversion.h"

namespace page4d_ros {

// The result for a camera at a window's last timestep. Pointers are valid during the call of Publish.
struct CameraResult {
  int camera = 0;
  int64_t stamp = 0;             // nanoseconds, of the image; if an older image is used again, that image's stamp
  const float* mask = nullptr;   // [h,w]; null if the engines have no masks
  const double* pose = nullptr;  // 4x4, camera to world; null if the engines have no poses
  const float* depth = nullptr;  // [H,W], z in the camera; null if the engines have no depth
  const double* K = nullptr;     // 3x3, in pixels of the engines' image; null if the engines have no intrinsics
  // Of a point cloud, with the mask; H is 0 if the engines give none. From depth and K where there are both, as these
  // are in the camera's frame; else from the points head, in EngineInfo::points_frame.
  CloudSource cloud;
};

struct RunCounts {
  int64_t runs = 0, failures = 0;
  double seconds = 0;   // of the last run
  std::string failure;  // message of the last run that failed
};

// From the worker's construction until `stop` has returned, only the worker's thread uses the pipeline, which must
// exist as long.
class Worker {
 public:
  // Called on the worker's thread, once for each camera that has an image in the window. An exception counts as a
  // failure of the window.
  using Publish = std::function<void(const CameraResult&)>;

  // Throws page4d::Error kUsage if the engines do not suit the cameras: another number of views, an input that cameras
  // do not give, nothing to publish.
  static void require(const page4d::EngineInfo& info, size_t cameras);

  // Throws page4d::Error kUsage, as Rig does.
  Worker(page4d::Pipeline& pipeline, const page4d::RigOptions& options, Publish publish);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Does not wait for windows. One thread per camera at a time. stamp: nanoseconds, on one clock for all cameras.
  // Ignores images after `stop`.
  page4d::Status push(int camera, const page4d::Image& image, int64_t stamp) noexcept;
  // Returns when the window under way is done; nothing is published after it. May be called again.
  void stop() noexcept;

  page4d::RigCounts counts() const noexcept { return rig_.counts(); }
  page4d::CameraCounts counts(int camera) const noexcept { return rig_.counts(camera); }
  RunCounts runs() const;

 private:
  void loop();
  void run(const page4d::Window& window);
  CameraResult result_of(const page4d::Window& window, int64_t view) const;
  void failed(const std::string& failure);

  page4d::Pipeline& pipeline_;
  const page4d::Layout layout_;
  page4d::Rig rig_;
  Publish publish_;

  std::vector<float> mask_;        // [T,V,h,w]; empty: the engines have no masks
  std::vector<double> camera_;     // [T,V,4,4]
  std::vector<float> depth_;       // [T,V,H,W]
  std::vector<double> K_;          // [T,V,3,3]
  std::vector<float> points_;      // [T,V,H,W,3]; empty where depth and K are there
  std::vector<float> confidence_;  // [T,V,H,W], of depth or points; empty: the engines have none
  bool confidence_is_logit_ = false;
  std::vector<unsigned char> memory_, next_memory_;
  bool remembers_ = false;  // whether memory_ is the memory of the window before
  bool has_run_ = false;    // whether the window before ran

  mutable std::mutex mutex_;
  RunCounts runs_;      // guarded by the mutex
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace page4d_ros
