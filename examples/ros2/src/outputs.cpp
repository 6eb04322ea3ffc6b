#include "page4d_ros/outputs.h"

#include <memory>
#include <string>
#include <utility>

#include "rclcpp/rclcpp.hpp"
#include "sensor_msgs/msg/point_field.hpp"

namespace page4d_ros {
namespace {

constexpr size_t kDepth = 5;  // messages kept for a slow subscriber

// The fit that the rig makes of this one: Fit::kPublished stands for the way of the engines' model.
page4d::Fit fit_for(const page4d::EngineInfo& info, page4d::Fit fit) {
  return fit == page4d::Fit::kPublished ? info.published_fit : fit;
}

template <class Message>
auto publisher_of(rclcpp_lifecycle::LifecycleNode& node, const std::string& topic) {
  rclcpp::PublisherOptions options;
  options.qos_overriding_options = rclcpp::QosOverridingOptions::with_default_policies();
  return node.create_publisher<Message>(topic, rclcpp::QoS(kDepth), options);
}

std::unique_ptr<sensor_msgs::msg::Image> message_of(GreyImage image, const Header& header) {
  auto message = std::make_unique<sensor_msgs::msg::Image>();
  message->header = header;
  message->width = image.width;
  message->height = image.height;
  message->step = image.step;
  message->encoding = image.encoding;
  message->is_bigendian = image.is_bigendian ? 1 : 0;
  message->data = std::move(image.data);
  return message;
}

std::unique_ptr<sensor_msgs::msg::PointCloud2> message_of(Cloud cloud, const Header& header) {
  auto message = std::make_unique<sensor_msgs::msg::PointCloud2>();
  message->header = header;
  for (const CloudField& field : kCloudFields) {
    sensor_msgs::msg::PointField entry;
    entry.name = field.name;
    entry.offset = field.offset;
    entry.datatype = sensor_msgs::msg::PointField::FLOAT32;
    entry.count = 1;
    message->fields.push_back(std::move(entry));
  }
  message->width = cloud.width;
  message->height = cloud.height;
  message->point_step = cloud.point_step;
  message->row_step = cloud.row_step;
  message->is_bigendian = cloud.is_bigendian;
  message->is_dense = cloud.is_dense;
  message->data = std::move(cloud.data);
  return message;
}

// The calibration of an image of the engines' size.
std::unique_ptr<sensor_msgs::msg::CameraInfo> message_of(const CameraModel& model, const page4d::Layout& layout,
                                                         const Header& header) {
  auto message = std::make_unique<sensor_msgs::msg::CameraInfo>();
  message->header = header;
  message->width = static_cast<uint32_t>(layout.W);
  message->height = static_cast<uint32_t>(layout.H);
  message->distortion_model = "plumb_bob";
  message->d.assign(5, 0.0);
  message->k = model.k;
  message->r = model.r;
  message->p = model.p;
  return message;
}

}  // namespace

CameraOutputs::CameraOutputs(rclcpp_lifecycle::LifecycleNode& node, size_t camera, const page4d::EngineInfo& info,
                             const Parameters& parameters)
    : layout_(info.layout),
      parameters_(parameters),
      region_(region_of(parameters.rig.frame_width, parameters.rig.frame_height, info.layout,
                        fit_for(info, parameters.rig.fit))),
      points_are_in_world_(info.points_frame == page4d::PointsFrame::kWorld) {
  const std::string prefix = "~/camera_" + std::to_string(camera);  // a name's part may not begin with a digit
  const bool masks = info.output("mask") != nullptr, depth = info.output("depth") != nullptr,
             intrinsics = info.output("intrinsics") != nullptr;
  if (masks) mask_ = publisher_of<sensor_msgs::msg::Image>(node, prefix + "/mask");
  if (info.output("camera") != nullptr) pose_ = publisher_of<geometry_msgs::msg::PoseStamped>(node, prefix + "/pose");
  if (depth) depth_ = publisher_of<sensor_msgs::msg::Image>(node, prefix + "/depth");
  if (intrinsics) camera_info_ = publisher_of<sensor_msgs::msg::CameraInfo>(node, prefix + "/camera_info");
  if (info.output("points") != nullptr || (depth && intrinsics))
    points_ = publisher_of<sensor_msgs::msg::PointCloud2>(node, prefix + "/points");
  if (!parameters.camera_infos.empty())
    given_camera_info_ = publisher_of<sensor_msgs::msg::CameraInfo>(node, prefix + "/given_camera_info");
}

void CameraOutputs::publish(const CameraResult& result, const Header& header,
                            const sensor_msgs::msg::CameraInfo* given) const {
  publish_mask(result, header);
  publish_pose(result, header);
  if (result.depth != nullptr) depth_->publish(message_of(depth_image(result.depth, layout_.H, layout_.W), header));
  publish_calibration(result, header, given);
  publish_points(result, header);
}

void CameraOutputs::publish_mask(const CameraResult& result, const Header& header) const {
  if (result.mask == nullptr) return;
  const MaskEncoding encoding = parameters_.mask_encoding;
  if (parameters_.mask_size == MaskSize::kImage)
    mask_->publish(message_of(mask_image(result.mask, layout_, region_, encoding), header));
  else
    mask_->publish(message_of(mask_image(result.mask, layout_.h(), layout_.w(), encoding), header));
}

void CameraOutputs::publish_points(const CameraResult& result, const Header& header) const {
  // a cloud is megabytes: without a subscriber none is made
  if (result.cloud.H == 0 || points_->get_subscription_count() + points_->get_intra_process_subscription_count() == 0)
    return;
  Header own = header;
  if (result.cloud.points != nullptr && points_are_in_world_) own.frame_id = parameters_.world_frame;
  points_->publish(message_of(cloud_of(result.cloud, parameters_.limits), own));
}

void CameraOutputs::publish_pose(const CameraResult& result, const Header& header) const {
  if (result.pose == nullptr) return;
  const Pose pose = pose_of(result.pose);
  if (!pose.valid) return;  // the engines gave no finite pose
  auto message = std::make_unique<geometry_msgs::msg::PoseStamped>();
  message->header.stamp = header.stamp;
  message->header.frame_id = parameters_.world_frame;
  message->pose.position.x = pose.position[0];
  message->pose.position.y = pose.position[1];
  message->pose.position.z = pose.position[2];
  message->pose.orientation.x = pose.orientation[0];
  message->pose.orientation.y = pose.orientation[1];
  message->pose.orientation.z = pose.orientation[2];
  message->pose.orientation.w = pose.orientation[3];
  pose_->publish(std::move(message));
}

void CameraOutputs::publish_calibration(const CameraResult& result, const Header& header,
                                        const sensor_msgs::msg::CameraInfo* given) const {
  if (result.K != nullptr) {
    const CameraModel model = camera_model_of(result.K);
    if (model.valid) camera_info_->publish(message_of(model, layout_, header));
  }
  // a calibration for images of another size may be of a binned or cut image: it is not published
  if (given == nullptr || given->width != region_.width || given->height != region_.height) return;
  const CameraModel model = camera_model_of(CameraModel{true, given->k, given->r, given->p}, region_);
  if (!model.valid) return;
  auto message = message_of(model, layout_, header);
  message->distortion_model = given->distortion_model;
  message->d = given->d;
  given_camera_info_->publish(std::move(message));
}

}  // namespace page4d_ros
