#include "page4d_ros/worker.h"

#include <chrono>
#include <exception>
#include <limits>
#include <utility>

namespace page4d_ros {

void Worker::require(const page4d::EngineInfo& info, size_t cameras) {
  using page4d::Code;
  using page4d::Error;
  if (cameras != static_cast<size_t>(info.layout.V))
    throw Error(Code::kUsage, "parameter cameras does not go with the engines")
        .got(std::to_string(cameras) + " topics")
        .allowed(std::to_string(info.layout.V) + ", one per view");
  if (info.input("keypoints") != nullptr)
    throw Error(Code::kUsage, "these engines were exported with --keypoints and need them")
        .hint("page4d-export without --keypoints: no topic brings them");
  for (const char* name : {"mask", "camera", "depth", "points"}) {
    if (info.output(name) != nullptr) return;
  }
  throw Error(Code::kUsage,
              "the engines give neither masks nor poses nor depth nor points: there is nothing to publish");
}

Worker::Worker(page4d::Pipeline& pipeline, const page4d::RigOptions& options, Publish publish)
    : pipeline_(pipeline),
      layout_(pipeline.info().layout),
      rig_(pipeline.info(), options),
      publish_(std::move(publish)) {
  const page4d::EngineInfo& info = pipeline.info();
  const auto views = static_cast<size_t>(layout_.frames());
  if (info.output("mask") != nullptr) mask_.resize(views * static_cast<size_t>(layout_.P()));
  if (info.output("camera") != nullptr) camera_.resize(views * 16);
  if (info.output("depth") != nullptr) depth_.resize(views * static_cast<size_t>(layout_.H * layout_.W));
  if (info.output("intrinsics") != nullptr) K_.resize(views * 9);
  const size_t pixels = views * static_cast<size_t>(layout_.H * layout_.W);
  const bool from_depth = !depth_.empty() && !K_.empty();
  if (!from_depth && info.output("points") != nullptr) points_.resize(3 * pixels);
  confidence_is_logit_ = !from_depth && info.output("confidence") != nullptr;
  if ((from_depth && info.output("depth_confidence") != nullptr) ||
      (!points_.empty() && (confidence_is_logit_ || info.output("points_confidence") != nullptr)))
    confidence_.resize(pixels);
  if (const page4d::Tensor* memory = info.output("memory"); memory != nullptr && info.input("memory") != nullptr) {
    memory_.resize(memory->bytes);
    next_memory_.resize(memory->bytes);
  }
  thread_ = std::thread([this] { loop(); });
}

Worker::~Worker() { stop(); }

page4d::Status Worker::push(int camera, const page4d::Image& image, int64_t stamp) noexcept {
  const page4d::Status status = rig_.push(camera, image, stamp).status;
  return rig_.closed() ? page4d::Status{} : status;  // closed: a late callback, which is no mistake
}

void Worker::stop() noexcept {
  rig_.close();
  if (thread_.joinable()) thread_.join();
}

RunCounts Worker::runs() const {
  const std::lock_guard lock(mutex_);
  return runs_;
}

void Worker::loop() {
  constexpr double kForever = std::numeric_limits<double>::infinity();
  page4d::Window window;
  while (rig_.wait(kForever)) {
    if (!rig_.take(window)) continue;
    try {
      run(window);
    } catch (const std::exception& error) {
      failed(error.what());
    }
    rig_.release(window);
  }
}

void Worker::run(const page4d::Window& window) {
  page4d::Frames frames;
  frames.images = window.images;
  frames.present = window.present;
  frames.memory = remembers_ ? memory_.data() : nullptr;
  frames.shared = has_run_ && pipeline_.slides() ? window.shared : 0;
  page4d::Outputs outputs;
  const auto write_to = [](auto& memory, page4d::Output& output) {
    if (!memory.empty()) output = {memory.data(), memory.size() * sizeof(memory[0]), page4d::Memory::kHost};
  };
  write_to(mask_, outputs.mask), write_to(camera_, outputs.camera), write_to(depth_, outputs.depth);
  write_to(K_, outputs.intrinsics), write_to(next_memory_, outputs.memory), write_to(points_, outputs.points);
  write_to(confidence_, points_.empty()        ? outputs.depth_confidence
                        : confidence_is_logit_ ? outputs.confidence
                                               : outputs.points_confidence);

  const auto began = std::chrono::steady_clock::now();
  const page4d::Status status = pipeline_.run(frames, outputs);
  if (!status) {
    remembers_ = has_run_ = false;  // the next window starts without memory and shared timesteps
    failed(status.message);
    return;
  }
  has_run_ = true;
  remembers_ = !next_memory_.empty();
  memory_.swap(next_memory_);
  {
    const std::lock_guard lock(mutex_);
    ++runs_.runs;
    runs_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }

  const int64_t last = (layout_.T - 1) * layout_.V;
  for (int64_t view = 0; view < layout_.V; ++view) {
    // else an image that is absent, or black, of a camera that has sent none yet
    if (window.stamps[last + view] != page4d::kNoStamp) publish_(result_of(window, view));
  }
}

CameraResult Worker::result_of(const page4d::Window& window, int64_t view) const {
  const int64_t image = (layout_.T - 1) * layout_.V + view, pixels = layout_.H * layout_.W;
  CameraResult result;
  result.camera = static_cast<int>(view);
  result.stamp = window.stamps[image];
  if (!mask_.empty()) result.mask = mask_.data() + image * layout_.P();
  if (!camera_.empty()) result.pose = camera_.data() + image * 16;
  if (!depth_.empty()) result.depth = depth_.data() + image * pixels;
  if (!K_.empty()) result.K = K_.data() + image * 9;
  if (points_.empty() && (result.depth == nullptr || result.K == nullptr)) return result;
  CloudSource& cloud = result.cloud;
  cloud.H = layout_.H, cloud.W = layout_.W;
  cloud.h = layout_.h(), cloud.w = layout_.w();
  if (!points_.empty()) cloud.points = points_.data() + image * pixels * 3;
  cloud.depth = result.depth, cloud.K = result.K, cloud.mask = result.mask;
  if (!confidence_.empty()) cloud.confidence = confidence_.data() + image * pixels;
  cloud.is_logit = confidence_is_logit_;
  cloud.image = static_cast<const uint8_t*>(window.images[image].data);
  cloud.row_bytes = window.images[image].row_bytes();
  return result;
}

void Worker::failed(const std::string& failure) {
  const std::lock_guard lock(mutex_);
  ++runs_.failures;
  runs_.failure = failure;
}

}  // namespace page4d_ros
