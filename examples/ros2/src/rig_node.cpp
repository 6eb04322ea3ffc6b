#include "page4d_ros/rig_node.h"

#include <exception>
#include <utility>

#include "page4d/error.h"
#include "page4d_ros/diagnosis.h"
#include "rclcpp_components/register_node_macro.hpp"

namespace page4d_ros {
namespace {

constexpr int kThrottle = 2000;  // milliseconds between two warnings of a kind

void fill(diagnostic_updater::DiagnosticStatusWrapper& status, const Diagnosis& diagnosis) {
  status.summary(static_cast<unsigned char>(diagnosis.level), diagnosis.message);
  for (const auto& [key, value] : diagnosis.values) status.add(key, value);
}

}  // namespace

// A callback that is still running when its subscription is destroyed shares this state, and so keeps it alive.
struct RigNode::Live {
  explicit Live(size_t cameras) : cameras(cameras), before(cameras) {}

  struct Camera {
    std::string frame_id;  // of its newest image
    int64_t refused = 0;
    std::string refusal;                                 // why the last was
    sensor_msgs::msg::CameraInfo::ConstSharedPtr given;  // its newest calibration
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
  std::vector<Before> before;  // of the last report; used by diagnostics alone, as the next two
  page4d::RigCounts rig_before;
  RunCounts runs_before;
  std::optional<Worker> worker;
};

RigNode::RigNode(const rclcpp::NodeOptions& options)
    : rclcpp_lifecycle::LifecycleNode("page4d_rig", options), updater_(this) {
  declare_node_parameters(*this);
  updater_.setHardwareID("none");
  updater_.add("rig", [this](diagnostic_updater::DiagnosticStatusWrapper& status) { diagnose(status); });
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
  parameters_ = read_parameters(*this);
  parameters_.options.log = [logger = get_logger()](page4d::LogLevel level, const char* message) {
    if (level == page4d::LogLevel::kInfo) RCLCPP_INFO(logger, "%s", message);
    if (level == page4d::LogLevel::kWarning) RCLCPP_WARN(logger, "%s", message);
    if (level == page4d::LogLevel::kError) RCLCPP_ERROR(logger, "%s", message);
  };
  pipeline_.emplace(page4d::Pipeline::load(parameters_.engines, parameters_.options));
  const page4d::EngineInfo& info = pipeline_->info();
  Worker::require(info, parameters_.cameras.size());
  page4d::Rig(info, parameters_.rig);  // refuses wrong options before the node is activated

  outputs_.clear();
  for (size_t camera = 0; camera < parameters_.cameras.size(); ++camera) {
    outputs_.emplace_back(*this, camera, info, parameters_);
    updater_.add(parameters_.cameras[camera],
                 [this, camera](diagnostic_updater::DiagnosticStatusWrapper& status) { diagnose(camera, status); });
  }
  updater_.setHardwareID(parameters_.engines);

  RCLCPP_INFO(get_logger(), "%s on %s; weights: %s", parameters_.engines.c_str(), pipeline_->described().c_str(),
              info.weights.c_str());
}

void RigNode::activate() {
  auto live = std::make_shared<Live>(parameters_.cameras.size());
  live->worker.emplace(*pipeline_, parameters_.rig,
                       [this, state = live.get()](const CameraResult& result) { publish(*state, result); });
  {
    const std::lock_guard lock(live_mutex_);
    live_ = live;
  }
  for (size_t camera = 0; camera < parameters_.cameras.size(); ++camera) subscribe(live, static_cast<int>(camera));
}

void RigNode::stop() noexcept {
  subscriptions_.clear();
  info_subscriptions_.clear();
  groups_.clear();
  std::shared_ptr<Live> live;
  {
    const std::lock_guard lock(live_mutex_);
    live.swap(live_);
  }
  if (live != nullptr && live->worker) live->worker->stop();
}

void RigNode::release() noexcept {
  stop();
  for (size_t camera = 0; camera < outputs_.size(); ++camera) updater_.removeByName(parameters_.cameras[camera]);
  outputs_.clear();
  pipeline_.reset();
}

std::shared_ptr<RigNode::Live> RigNode::live() const {
  const std::lock_guard lock(live_mutex_);
  return live_;
}

void RigNode::subscribe(const std::shared_ptr<Live>& live, int camera) {
  groups_.push_back(create_callback_group(rclcpp::CallbackGroupType::MutuallyExclusive));
  rclcpp::SubscriptionOptions options;
  options.callback_group = groups_.back();
  options.qos_overriding_options = rclcpp::QosOverridingOptions::with_default_policies();
  auto callback = [live, camera, logger = get_logger(),
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
  const std::string& topic = parameters_.cameras[static_cast<size_t>(camera)];
  subscriptions_.push_back(
      create_subscription<sensor_msgs::msg::Image>(topic, rclcpp::SensorDataQoS(), std::move(callback), options));
  if (parameters_.camera_infos.empty()) return;
  auto keep = [live, camera](sensor_msgs::msg::CameraInfo::ConstSharedPtr message) {
    const std::lock_guard lock(live->mutex);
    live->cameras[static_cast<size_t>(camera)].given = std::move(message);
  };
  info_subscriptions_.push_back(create_subscription<sensor_msgs::msg::CameraInfo>(
      parameters_.camera_infos[static_cast<size_t>(camera)], rclcpp::SensorDataQoS(), std::move(keep), options));
}

// On the worker's thread.
void RigNode::publish(const Live& live, const CameraResult& result) {
  const auto camera = static_cast<size_t>(result.camera);
  Header header;
  const Stamp stamp = stamp_of(result.stamp);
  header.stamp.sec = stamp.sec;
  header.stamp.nanosec = stamp.nanosec;
  sensor_msgs::msg::CameraInfo::ConstSharedPtr given;
  {
    const std::lock_guard lock(live.mutex);
    header.frame_id = live.cameras[camera].frame_id;
    given = live.cameras[camera].given;
  }
  outputs_[camera].publish(result, header, given.get());
}

void RigNode::diagnose(diagnostic_updater::DiagnosticStatusWrapper& status) {
  const std::shared_ptr<Live> live = this->live();
  if (live == nullptr) return fill(status, {Level::kOk, "not active", {}});
  const page4d::RigCounts rig = live->worker->counts();
  const RunCounts runs = live->worker->runs();
  if (runs.failures > live->runs_before.failures)
    RCLCPP_ERROR(get_logger(), "a window failed: %s", runs.failure.c_str());
  fill(status, diagnosis_of(rig, live->rig_before, runs, live->runs_before));
  live->rig_before = rig;
  live->runs_before = runs;
}

void RigNode::diagnose(size_t camera, diagnostic_updater::DiagnosticStatusWrapper& status) {
  const std::shared_ptr<Live> live = this->live();
  if (live == nullptr) return fill(status, {Level::kOk, "not active", {}});
  const page4d::CameraCounts counts = live->worker->counts(static_cast<int>(camera));
  Live::Camera state;
  {
    const std::lock_guard lock(live->mutex);
    state = live->cameras[camera];
  }
  Live::Before& before = live->before[camera];
  fill(status, diagnosis_of(counts, before.counts, state.refused, before.refused, state.refusal));
  before = {counts, state.refused};
}

}  // namespace page4d_ros

RCLCPP_COMPONENTS_REGISTER_NODE(page4d_ros::RigNode)
