// The component: images of several cameras in, point clouds, masks, poses and depth out.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "diagnostic_updater/diagnostic_updater.hpp"
#include "page4d/pipeline.h"
#include "page4d_ros/outputs.h"
#include "page4d_ros/parameters.h"
#include "page4d_ros/worker.h"
#include "rclcpp/rclcpp.hpp"
#include "rclcpp_lifecycle/lifecycle_node.hpp"
#include "sensor_msgs/msg/camera_info.hpp"
#include "sensor_msgs/msg/image.hpp"

namespace page4d_ros {

// Configured: the engines are loaded. Active: images are read, and windows run on a thread of their own. Each
// activation starts a new rig, so that no window spans a pause.
class RigNode : public rclcpp_lifecycle::LifecycleNode {
 public:
  explicit RigNode(const rclcpp::NodeOptions& options);
  ~RigNode() override;

  // FAILURE, with the reason in the log, if parameters are wrong or the engines do not load.
  CallbackReturn on_configure(const rclcpp_lifecycle::State& state) override;
  CallbackReturn on_activate(const rclcpp_lifecycle::State& state) override;
  CallbackReturn on_deactivate(const rclcpp_lifecycle::State& state) override;
  CallbackReturn on_cleanup(const rclcpp_lifecycle::State& state) override;
  CallbackReturn on_shutdown(const rclcpp_lifecycle::State& state) override;
  // Always SUCCESS: the node can be configured again.
  CallbackReturn on_error(const rclcpp_lifecycle::State& state) override;

 private:
  struct Live;  // state while the node is active; shared with the subscriptions' callbacks

  void configure();
  void activate();
  void stop() noexcept;
  void release() noexcept;
  void subscribe(const std::shared_ptr<Live>& live, int camera);
  void publish(const Live& live, const CameraResult& result);
  std::shared_ptr<Live> live() const;
  void diagnose(diagnostic_updater::DiagnosticStatusWrapper& status);
  void diagnose(size_t camera, diagnostic_updater::DiagnosticStatusWrapper& status);

  Parameters parameters_;
  std::optional<page4d::Pipeline> pipeline_;
  std::vector<CameraOutputs> outputs_;

  mutable std::mutex live_mutex_;  // of the pointer: transitions and diagnostics may run on two threads
  std::shared_ptr<Live> live_;
  std::vector<rclcpp::CallbackGroup::SharedPtr>
      groups_;  // one per camera: cameras in parallel, a camera's images in turn
  std::vector<rclcpp::Subscription<sensor_msgs::msg::Image>::SharedPtr> subscriptions_;
  std::vector<rclcpp::Subscription<sensor_msgs::msg::CameraInfo>::SharedPtr> info_subscriptions_;
  diagnostic_updater::Updater updater_;  // last: it reads all of the above. It also reports while the node is inactive
};

}  // namespace page4d_ros
