// The node's parameters: declared with descriptions and bounds, read into values that are checked.
#pragma once

#include <string>
#include <vector>

#include "page4d/pipeline.h"
#include "page4d/rig.h"
#include "page4d_ros/cloud.h"
#include "page4d_ros/conversion.h"
#include "rclcpp_lifecycle/lifecycle_node.hpp"

namespace page4d_ros {

struct Parameters {
  std::string engines, world_frame;
  std::vector<std::string> cameras;       // topics of images, in the order of the views
  std::vector<std::string> camera_infos;  // topics of their calibration; empty: none is given
  page4d::Options options;
  page4d::RigOptions rig;
  MaskEncoding mask_encoding = MaskEncoding::kMono8;
  MaskSize mask_size = MaskSize::kImage;
  CloudLimits limits;
};

void declare_node_parameters(rclcpp_lifecycle::LifecycleNode& node);

// Throws page4d::Error kUsage for a value that is not allowed, or another number of camera_infos than of cameras.
Parameters read_parameters(const rclcpp_lifecycle::LifecycleNode& node);

}  // namespace page4d_ros
