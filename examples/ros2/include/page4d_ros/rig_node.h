// The component: images of several cameras in, masks, poses and depth out.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "diagnostic_msgs/msg/diagnostic_array.hpp"
#include "geometry_msgs/msg/pose_stamped.hpp"
#include "page4d/pipeline.h"
#include "page4d/rig.h"
#include "page4d_ros/conversion.h"
#include "page4d_ros/worker.h"
#include "rclcpp/rclcpp.hpp"
#include "rclcpp_lifecycle/lifecycle_node.hpp"
#include "rclcpp_lifecycle/lifecycle_publisher.hpp"
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

  struct CameraPublishers {
    rclcpp_lifecycle::LifecyclePublisher<sensor_msgs::msg::Image>::SharedPtr mask;
    rclcpp_lifecycle::LifecyclePublisher<geometry_msgs::msg::PoseStamped>::SharedPtr pose;
    rclcpp_lifecycle::LifecyclePublisher<sensor_msgs::msg::Image>::SharedPtr depth;
    rclcpp_lifecycle::LifecyclePublisher<sensor_msgs::msg::CameraInfo>::SharedPtr camera_info;
  };

  void configure();
  void activate();
  void stop() noexcept;
  void release() noexcept;
  void subscribe(int camera);
  void publish(const Live& live, const CameraResult& result);
  void diagnose();

  std::vector<std::string> topics_;  // of the cameras, in the order of the views
  page4d::RigOptions rig_options_;
  MaskEncoding mask_encoding_ = MaskEncoding::kMono8;
  std::string engines_, world_frame_;

  std::optional<page4d::Pipeline> pipeline_;
  std::vector<CameraPublishers> publishers_;
  rclcpp_lifecycle::LifecyclePublisher<diagnostic_msgs::msg::DiagnosticArray>::SharedPtr diagnostics_;

  std::shared_ptr<Live> live_;
  std::vector<rclcpp::CallbackGroup::SharedPtr>
      groups_;  // one per camera: cameras in parallel, a camera's images in turn
  std::vector<rclcpp::Subscription<sensor_msgs::msg::Image>::SharedPtr> subscriptions_;
  rclcpp::TimerBase::SharedPtr timer_;
};

}  // namespace page4d_ros
