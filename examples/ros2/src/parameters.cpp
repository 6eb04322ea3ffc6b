#include "page4d_ros/parameters.h"

#include "page4d/error.h"
#include "rcl_interfaces/msg/floating_point_range.hpp"
#include "rcl_interfaces/msg/integer_range.hpp"
#include "rcl_interfaces/msg/parameter_descriptor.hpp"

namespace page4d_ros {
namespace {

using Descriptor = rcl_interfaces::msg::ParameterDescriptor;
using Names = std::vector<std::string>;

constexpr int64_t kMostPixels = 65536, kMostThreads = 1024;
constexpr double kMostSeconds = 60;

Descriptor described(const char* description, const char* constraints = "") {
  Descriptor descriptor;
  descriptor.description = description;
  descriptor.additional_constraints = constraints;
  return descriptor;
}

// For what other nodes rely on as long as this one exists.
Descriptor fixed(Descriptor descriptor) {
  descriptor.read_only = true;
  return descriptor;
}

Descriptor ranged(const char* description, int64_t from, int64_t to) {
  Descriptor descriptor = described(description);
  rcl_interfaces::msg::IntegerRange range;
  range.from_value = from;
  range.to_value = to;
  range.step = 1;
  descriptor.integer_range.push_back(range);
  return descriptor;
}

Descriptor ranged(const char* description, double from, double to) {
  Descriptor descriptor = described(description);
  rcl_interfaces::msg::FloatingPointRange range;
  range.from_value = from;
  range.to_value = to;
  descriptor.floating_point_range.push_back(range);
  return descriptor;
}

}  // namespace

void declare_node_parameters(rclcpp_lifecycle::LifecycleNode& node) {
  node.declare_parameter<std::string>("engines", "", described("folder that page4d-export wrote"));
  node.declare_parameter<std::string>("backend", "tensorrt",
                                      fixed(described("what runs the engines", "tensorrt, auto, onnxruntime, test")));
  node.declare_parameter<std::string>(
      "onnxruntime_library", "",
      fixed(described("ONNX Runtime's library, a file; empty: the one that is found, in a Python environment, too")));
  node.declare_parameter<int64_t>("threads", 0,
                                  fixed(ranged("of ONNX Runtime; 0: every CPU", int64_t{0}, kMostThreads)));
  node.declare_parameter<Names>("cameras", Names{}, fixed(described("image topics, in the order of the views")));
  node.declare_parameter<Names>("camera_infos", Names{},
                                fixed(described("topics of the cameras' calibration, one per camera, or none")));
  node.declare_parameter<int64_t>("frame_width", 0,
                                  ranged("width of the images; 0: the engines' own", int64_t{0}, kMostPixels));
  node.declare_parameter<int64_t>("frame_height", 0,
                                  ranged("height of the images; 0: the engines' own", int64_t{0}, kMostPixels));
  node.declare_parameter<std::string>(
      "fit", "none",
      described("what becomes of another aspect ratio", "none, stretch, crop, pad, published, published-pad"));
  node.declare_parameter<int64_t>(
      "stride", 0, ranged("timesteps from a window's start to the next's; 0: T", int64_t{0}, int64_t{4096}));
  node.declare_parameter<double>("tolerance", page4d::RigOptions().tolerance,
                                 ranged("seconds that stamps of one timestep may be apart", 0.0, kMostSeconds));
  node.declare_parameter<double>("patience", page4d::RigOptions().patience,
                                 ranged("seconds, by the stamps, that a camera is waited for", 0.0, kMostSeconds));
  node.declare_parameter<std::string>("missing", "skip",
                                      described("what becomes of a timestep without a camera", "skip, repeat, absent"));
  node.declare_parameter<std::string>("mask_encoding", "mono8", described("of the masks", "mono8, 32FC1"));
  node.declare_parameter<std::string>(
      "mask_size", "image",
      described("a mask has a pixel for each of the camera's image, or for each patch", "image, patches"));
  node.declare_parameter<double>("min_confidence", 0.1,
                                 ranged("least probability of a point, for Pi3 and Pi3X", 0.0, 1.0));
  node.declare_parameter<double>(
      "confidence_percentile", 40.0,
      ranged("least confidence of a point, as a percentile of its image, for other models", 0.0, 100.0));
  node.declare_parameter<std::string>("world_frame", "page4d_world", fixed(described("frame_id of the poses")));
}

Parameters read_parameters(const rclcpp_lifecycle::LifecycleNode& node) {
  Parameters parameters;
  parameters.engines = node.get_parameter("engines").as_string();
  parameters.world_frame = node.get_parameter("world_frame").as_string();
  parameters.cameras = node.get_parameter("cameras").as_string_array();
  parameters.camera_infos = node.get_parameter("camera_infos").as_string_array();
  // a file of parameters cannot hold an empty list: one empty name stands for it
  if (parameters.camera_infos == Names{""}) parameters.camera_infos.clear();
  if (!parameters.camera_infos.empty() && parameters.camera_infos.size() != parameters.cameras.size())
    throw page4d::Error(page4d::Code::kUsage, "parameter camera_infos does not go with cameras")
        .got(std::to_string(parameters.camera_infos.size()) + " topics")
        .allowed("none, or " + std::to_string(parameters.cameras.size()) + ", one per camera");
  parameters.mask_encoding = mask_encoding_of(node.get_parameter("mask_encoding").as_string());
  parameters.mask_size = mask_size_of(node.get_parameter("mask_size").as_string());
  parameters.limits.probability = node.get_parameter("min_confidence").as_double();
  parameters.limits.percentile = node.get_parameter("confidence_percentile").as_double();
  page4d::RigOptions& rig = parameters.rig;
  rig.stride = node.get_parameter("stride").as_int();
  rig.tolerance = node.get_parameter("tolerance").as_double();
  rig.patience = node.get_parameter("patience").as_double();
  rig.missing = missing_of(node.get_parameter("missing").as_string());
  rig.frame_width = pixels_of(node.get_parameter("frame_width").as_int(), "frame_width");
  rig.frame_height = pixels_of(node.get_parameter("frame_height").as_int(), "frame_height");
  rig.fit = fit_of(node.get_parameter("fit").as_string());
  // without a size of frames: the rig resizes images to the engines' size
  parameters.options.backend = backend_of(node.get_parameter("backend").as_string());
  parameters.options.onnxruntime_library = node.get_parameter("onnxruntime_library").as_string();
  parameters.options.threads = static_cast<int>(node.get_parameter("threads").as_int());
  parameters.options.sliding = rig.stride > 0;  // timesteps that windows share are encoded once
  return parameters;
}

}  // namespace page4d_ros
