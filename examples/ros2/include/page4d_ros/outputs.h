// What is published of one camera.
#pragma once

#include <cstddef>

#include "geometry_msgs/msg/pose_stamped.hpp"
#include "page4d/engine_info.h"
#include "page4d_ros/conversion.h"
#include "page4d_ros/parameters.h"
#include "page4d_ros/worker.h"
#include "rclcpp_lifecycle/lifecycle_node.hpp"
#include "rclcpp_lifecycle/lifecycle_publisher.hpp"
#include "sensor_msgs/msg/camera_info.hpp"
#include "sensor_msgs/msg/image.hpp"
#include "sensor_msgs/msg/point_cloud2.hpp"

namespace page4d_ros {

using Header = decltype(sensor_msgs::msg::Image::header);

// The publishers of a camera, as far as the engines give what they are for. Reliable, as RViz and most nodes subscribe;
// parameters qos_overrides.* change that.
class CameraOutputs {
 public:
  CameraOutputs(rclcpp_lifecycle::LifecycleNode& node, size_t camera, const page4d::EngineInfo& info,
                const Parameters& parameters);

  // header: of the camera's image. given: the camera's calibration as it came; null: none did.
  void publish(const CameraResult& result, const Header& header, const sensor_msgs::msg::CameraInfo* given) const;

 private:
  template <class Message>
  using Publisher = typename rclcpp_lifecycle::LifecyclePublisher<Message>::SharedPtr;

  void publish_mask(const CameraResult& result, const Header& header) const;
  void publish_points(const CameraResult& result, const Header& header) const;
  void publish_pose(const CameraResult& result, const Header& header) const;
  void publish_calibration(const CameraResult& result, const Header& header,
                           const sensor_msgs::msg::CameraInfo* given) const;

  page4d::Layout layout_;
  Parameters parameters_;
  Region region_;
  bool points_are_in_world_ = false;
  Publisher<sensor_msgs::msg::Image> mask_, depth_;
  Publisher<sensor_msgs::msg::PointCloud2> points_;
  Publisher<geometry_msgs::msg::PoseStamped> pose_;
  Publisher<sensor_msgs::msg::CameraInfo> camera_info_, given_camera_info_;
};

}  // namespace page4d_ros
