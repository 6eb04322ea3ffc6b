#include "page4d_ros/rig_node.h"

#include <chrono>
#include <exception>
#include <mutex>
#include <utility>

#include "diagnostic_msgs/msg/diagnostic_status.hpp"
#include "diagnostic_msgs/msg/key_value.hpp"
#include "page4d_ros/diagnosis.h"
#include "rclcpp_components/register_node_macro.hpp"

namespace page4d_ros {
namespace {

using Header = decltype(sensor_msgs::msg::Image::header);

constexpr int kThrottle = 2000;  // milliseconds between two warnings of a kind

diagnostic_msgs::msg::DiagnosticStatus status_of(const Diagnosis& diagnosis, std::string name, std::string hardware) {
  diagnostic_msgs::msg::DiagnosticStatus status;
  status.level = static_cast<decltype(status.level)>(diagnosis.level);
  status.name = std::move(name);
  status.message = diagnosis.message;
  status.hardware_id = std::move(hardware);
  for (const auto& [key, value] : diagnosis.values) {
    diagnostic_msgs::msg::KeyValue entry;
    entry.key = key;
    entry.value = value;
    status.values.push_back(std::move(entry));
  }
  return status;
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

}  // namespace

// A callback that is still running when its subscription is destroyed shares this state, and so keeps it alive.
struct RigNode::Live {
  explicit Live(size_t cameras) : cameras(cameras), before(cameras) {}

  struct Camera {
    std::string frame_id;  // of its newest image
    int64_t refused = 0;
    std::string refusal;  // why the last was
  };
  struct Before {
    page4d::CameraCounts counts;
    int64_t refused = 0;
  };

  void refuse(size_t camera, const std::string& why) {
    const std::lock_guard lock(mutex);
    ++cameras[camera].refused;
    cameras[camera].refusal = why;
  }

  mutable std::mutex mutex;  // of cameras
  std::vector<Camera> cameras;
  std::vector<Before> before;  // of the last report; used by the timer alone, as the next two
  page4d::RigCounts rig_before;
  RunCounts runs_before;
  std::optional<Worker> worker;
};

RigNode::RigNode(const rclcpp::NodeOptions& options) : rclcpp_lifecycle::LifecycleNode("page4d_rig", options) {
  declare_parameter<std::string>("engines", "");
  declare_parameter<std::string>("backend", "tensorrt");
  declare_parameter<std::vector<std::string>>("cameras", std::vector<std::string>{});
  declare_parameter<int64_t>("frame_width", 0);
  declare_parameter<int64_t>("frame_height", 0);
  declare_parameter<std::string>("fit", "none");
  declare_parameter<int64_t>("stride", 0);
  declare_parameter<double>("tolerance", page4d::RigOptions().tolerance);
  declare_parameter<double>("patience", page4d::RigOptions().patience);
  declare_parameter<std::string>("missing", "skip");
  declare_parameter<std::string>("mask_encoding", "mono8");
  declare_parameter<std::string>("world_frame", "page4d_world");
}

RigNode::~RigNode() { release(); }

RigNode::CallbackReturn RigNode::on_configure(const rclcpp_lifecycle::State&) {
  try {
    configure();
    return CallbackReturn::SUCCESS;
  } catch (const std::exception& error) {  // page4d::Error among them
    RCLCPP_ERROR(get_logger(), "not configured: %s", error.what());
    release();
    return CallbackReturn::FAILURE;
  }
}

RigNode::CallbackReturn RigNode::on_activate(const rclcpp_lifecycle::State& state) {
  // activates the publishers before the first window is done
  const CallbackReturn activated = LifecycleNode::on_activate(state);
  if (activated != CallbackReturn::SUCCESS) return activated;
  try {
    activate();
    return CallbackReturn::SUCCESS;
  } catch (const std::exception& error) {
    RCLCPP_ERROR(get_logger(), "not activated: %s", error.what());
    stop();
    LifecycleNode::on_deactivate(state);
    return CallbackReturn::FAILURE;
  }
}

RigNode::CallbackReturn RigNode::on_deactivate(const rclcpp_lifecycle::State& state) {
  stop();
  return LifecycleNode::on_deactivate(state);
}

RigNode::CallbackReturn RigNode::on_cleanup(const rclcpp_lifecycle::State&) {
  release();
  return CallbackReturn::SUCCESS;
}

RigNode::CallbackReturn RigNode::on_shutdown(const rclcpp_lifecycle::State&) {
  release();
  return CallbackReturn::SUCCESS;
}

RigNode::CallbackReturn RigNode::on_error(const rclcpp_lifecycle::State& state) {
  RCLCPP_ERROR(get_logger(), "an error in state %s: everything is freed", state.label().c_str());
  release();
  return CallbackReturn::SUCCESS;
}

void RigNode::configure() {
  engines_ = get_parameter("engines").as_string();
  topics_ = get_parameter("cameras").as_string_array();
  world_frame_ = get_parameter("world_frame").as_string();
  mask_encoding_ = mask_encoding_of(get_parameter("mask_encoding").as_string());
  rig_options_ = page4d::RigOptions();
  rig_options_.stride = get_parameter("stride").as_int();
  rig_options_.tolerance = get_parameter("tolerance").as_double();
  rig_options_.patience = get_parameter("patience").as_double();
  rig_options_.missing = missing_of(get_parameter("missing").as_string());
  rig_options_.frame_width = pixels_of(get_parameter("frame_width").as_int(), "frame_width");
  rig_options_.frame_height = pixels_of(get_parameter("frame_height").as_int(), "frame_height");
  rig_options_.fit = fit_of(get_parameter("fit").as_string());
  page4d::Options options;  // without a size of frames: the rig resizes images to the engines' size
  options.backend = backend_of(get_parameter("backend").as_string());
  options.sliding = rig_options_.stride > 0;  // timesteps that windows share are encoded once

  pipeline_.emplace(page4d::Pipeline::load(engines_, options));
  const page4d::EngineInfo& info = pipeline_->info();
  const bool masks = info.output("mask") != nullptr, poses = info.output("camera") != nullptr,
             depth = info.output("depth") != nullptr, intrinsics = info.output("intrinsics") != nullptr;
  Worker::require(info, topics_.size());
  page4d::Rig(info, rig_options_);  // refuses wrong options before the node is activated

  publishers_.clear();
  for (size_t camera = 0; camera < topics_.size(); ++camera) {
    const std::string prefix = "~/camera_" + std::to_string(camera);  // a name's part may not begin with a digit
    CameraPublishers publishers;
    if (masks) publishers.mask = create_publisher<sensor_msgs::msg::Image>(prefix + "/mask", rclcpp::SensorDataQoS());
    if (poses)
      publishers.pose = create_publisher<geometry_msgs::msg::PoseStamped>(prefix + "/pose", rclcpp::SensorDataQoS());
    if (depth) publishers.depth = create_publisher<sensor_msgs::msg::Image>(prefix + "/depth", rclcpp::SensorDataQoS());
    if (intrinsics)
      publishers.camera_info =
          create_publisher<sensor_msgs::msg::CameraInfo>(prefix + "/camera_info", rclcpp::SensorDataQoS());
    publishers_.push_back(std::move(publishers));
  }
  diagnostics_ = create_publisher<diagnostic_msgs::msg::DiagnosticArray>("/diagnostics", rclcpp::QoS(10));

  RCLCPP_INFO(get_logger(), "%s on %s; weights: %s", engines_.c_str(), pipeline_->described().c_str(),
              info.weights.c_str());
  for (const std::string& warning : pipeline_->warnings()) RCLCPP_WARN(get_logger(), "%s", warning.c_str());
}

void RigNode::activate() {
  live_ = std::make_shared<Live>(topics_.size());
  live_->worker.emplace(*pipeline_, rig_options_,
                        [this, live = live_.get()](const CameraResult& result) { publish(*live, result); });
  for (size_t camera = 0; camera < topics_.size(); ++camera) subscribe(static_cast<int>(camera));
  timer_ = create_wall_timer(std::chrono::seconds(1), [this] { diagnose(); });
}

void RigNode::stop() noexcept {
  timer_.reset();
  subscriptions_.clear();
  groups_.clear();
  if (live_ != nullptr && live_->worker) live_->worker->stop();
  live_.reset();
}

void RigNode::release() noexcept {
  stop();
  publishers_.clear();
  diagnostics_.reset();
  pipeline_.reset();
}

void RigNode::subscribe(int camera) {
  groups_.push_back(create_callback_group(rclcpp::CallbackGroupType::MutuallyExclusive));
  rclcpp::SubscriptionOptions options;
  options.callback_group = groups_.back();
  auto callback = [live = live_, camera, logger = get_logger(),
                   clock = get_clock()](sensor_msgs::msg::Image::ConstSharedPtr message) {
    const auto index = static_cast<size_t>(camera);
    try {
      const sensor_msgs::msg::Image& image = *message;
      {
        const std::lock_guard lock(live->mutex);
        live->cameras[index].frame_id = image.header.frame_id;
      }
      const int64_t stamp = nanoseconds_of({image.header.stamp.sec, image.header.stamp.nanosec});
      const page4d::Image pixels = image_of({image.width, image.height, image.step, image.encoding,
                                             image.is_bigendian != 0, image.data.data(), image.data.size()});
      const page4d::Status status = live->worker->push(camera, pixels, stamp);
      if (status) return;
      throw page4d::Error(status.code, status.message);
    } catch (const std::exception& error) {
      live->refuse(index, error.what());
      RCLCPP_WARN_THROTTLE(logger, *clock, kThrottle, "camera %d: %s", camera, error.what());
    }
  };
  const std::string& topic = topics_[static_cast<size_t>(camera)];
  subscriptions_.push_back(
      create_subscription<sensor_msgs::msg::Image>(topic, rclcpp::SensorDataQoS(), std::move(callback), options));
}

// On the worker's thread.
void RigNode::publish(const Live& live, const CameraResult& result) {
  const auto camera = static_cast<size_t>(result.camera);
  const CameraPublishers& publishers = publishers_[camera];
  const page4d::Layout& layout = pipeline_->info().layout;
  Header header;
  const Stamp stamp = stamp_of(result.stamp);
  header.stamp.sec = stamp.sec;
  header.stamp.nanosec = stamp.nanosec;
  {
    const std::lock_guard lock(live.mutex);
    header.frame_id = live.cameras[camera].frame_id;
  }
  if (result.mask != nullptr)
    publishers.mask->publish(message_of(mask_image(result.mask, layout.h(), layout.w(), mask_encoding_), header));
  if (result.depth != nullptr)
    publishers.depth->publish(message_of(depth_image(result.depth, layout.H, layout.W), header));
  if (result.K != nullptr) {
    const CameraModel model = camera_model_of(result.K);
    auto message = std::make_unique<sensor_msgs::msg::CameraInfo>();
    message->header = header;
    message->width = static_cast<uint32_t>(layout.W);
    message->height = static_cast<uint32_t>(layout.H);
    message->distortion_model = "plumb_bob";
    message->d.assign(5, 0.0);
    message->k = model.k;
    message->r = model.r;
    message->p = model.p;
    if (model.valid) publishers.camera_info->publish(std::move(message));
  }
  if (result.pose == nullptr) return;
  const Pose pose = pose_of(result.pose);
  if (!pose.valid) return;  // the engines gave no finite pose
  auto message = std::make_unique<geometry_msgs::msg::PoseStamped>();
  message->header.stamp = header.stamp;
  message->header.frame_id = world_frame_;
  message->pose.position.x = pose.position[0];
  message->pose.position.y = pose.position[1];
  message->pose.position.z = pose.position[2];
  message->pose.orientation.x = pose.orientation[0];
  message->pose.orientation.y = pose.orientation[1];
  message->pose.orientation.z = pose.orientation[2];
  message->pose.orientation.w = pose.orientation[3];
  publishers.pose->publish(std::move(message));
}

void RigNode::diagnose() {
  if (live_ == nullptr || diagnostics_ == nullptr) return;
  Live& live = *live_;
  const std::string name = get_node_base_interface()->get_fully_qualified_name();
  const page4d::RigCounts rig = live.worker->counts();
  const RunCounts runs = live.worker->runs();
  if (runs.failures > live.runs_before.failures)
    RCLCPP_ERROR(get_logger(), "a window failed: %s", runs.failure.c_str());
  auto message = std::make_unique<diagnostic_msgs::msg::DiagnosticArray>();
  message->header.stamp = now();
  message->status.push_back(
      status_of(diagnosis_of(rig, live.rig_before, runs, live.runs_before), name + ": rig", engines_));
  live.rig_before = rig;
  live.runs_before = runs;
  for (size_t camera = 0; camera < topics_.size(); ++camera) {
    const page4d::CameraCounts counts = live.worker->counts(static_cast<int>(camera));
    Live::Camera state;
    {
      const std::lock_guard lock(live.mutex);
      state = live.cameras[camera];
    }
    Live::Before& before = live.before[camera];
    message->status.push_back(
        status_of(diagnosis_of(counts, before.counts, state.refused, before.refused, state.refusal),
                  name + ": " + topics_[camera], engines_));
    before = {counts, state.refused};
  }
  diagnostics_->publish(std::move(message));
}

}  // namespace page4d_ros

RCLCPP_COMPONENTS_REGISTER_NODE(page4d_ros::RigNode)
