#include "host_steps/host_results.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace page4d {
namespace {

// Focal length in pixels at which the depth of Depth Anything 3 METRIC is in metres; it grows with the focal length.
constexpr double kFocalOfMetres = 300;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Computed in double.
template <class Scale>
void rescale(float* values, int64_t count, const Scale& scale) {
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(scale(static_cast<double>(values[i])));
}

}  // namespace

HostResults::HostResults(const Manifest& manifest, const BufferPlan& plan, const Chain& chain, Device& device,
                         std::optional<KnownCameras> known)
    : device_(device),
      layout_(manifest.layout),
      direction_(manifest.pose_direction == kCameraToWorld ? PoseDirection::kCameraToWorld
                                                           : PoseDirection::kWorldToCamera),
      takes_focal_lengths_(manifest.takes_focal_lengths()),
      known_(std::move(known)),
      camera_view_(plan.output("camera")),
      metric_view_(plan.output("metric")) {
  const auto staged = [&](const BufferView* view) {
    return view == nullptr ? nullptr : static_cast<float*>(device.staging(static_cast<size_t>(view->bytes())));
  };
  numbers_ = staged(camera_view_), metric_ = staged(metric_view_);
  if (camera_view_ != nullptr) device_numbers_ = chain.at(*camera_view_), size_ = camera_view_->shape.back();
  if (metric_view_ != nullptr) device_metric_ = chain.at(*metric_view_);
  if (known_) estimated_.resize(static_cast<size_t>(layout_.V) * 16);
  present_.resize(static_cast<size_t>(layout_.images()));
}

bool HostResults::computes(Output Outputs::* member) const noexcept {
  return member == &Outputs::camera || member == &Outputs::intrinsics ||
         (member == &Outputs::points && metric_view_ != nullptr) ||
         (member == &Outputs::depth && known_ && (camera_view_ != nullptr || takes_focal_lengths_));
}

bool HostResults::is_asked(const Outputs& outputs) const noexcept {
  for (Output Outputs::* member : {&Outputs::camera, &Outputs::intrinsics, &Outputs::points, &Outputs::depth}) {
    if ((outputs.*member).data != nullptr && computes(member)) return true;
  }
  return false;
}

Failure HostResults::put(const Outputs& outputs, const uint8_t* present, Stream stream) noexcept {
  if (!is_asked(outputs)) return nullptr;
  std::copy_n(present, present_.size(), present_.begin());
  camera_ = static_cast<double*>(outputs.camera.data), intrinsics_ = static_cast<double*>(outputs.intrinsics.data);
  points_ = computes(&Outputs::points) ? static_cast<float*>(outputs.points.data) : nullptr;
  depth_ = computes(&Outputs::depth) ? static_cast<float*>(outputs.depth.data) : nullptr;
  Failure failure = nullptr;
  if (camera_view_ != nullptr)
    failure = device_.download(numbers_, device_numbers_, static_cast<size_t>(camera_view_->bytes()), stream);
  if (failure == nullptr && metric_view_ != nullptr)
    failure = device_.download(metric_, device_metric_, static_cast<size_t>(metric_view_->bytes()), stream);
  if (failure != nullptr) return failure;
  return device_.call_host([](void* results) { static_cast<HostResults*>(results)->compute(); }, this, stream);
}

void HostResults::compute() noexcept {
  compute_all();
  leave_out_absent();
}

void HostResults::compute_all() noexcept {
  if (points_ != nullptr) scale_points();
  if (known_ && takes_focal_lengths_) return scale_by_focal_length();
  if (known_) {
    for (int64_t clip = 0; clip < layout_.B; ++clip) take_known(clip, estimated_.data());
    return;
  }
  const int64_t frames = layout_.frames();
  if (camera_ != nullptr) camera_to_world(numbers_, size_, layout_.images(), direction_, camera_);
  for (int64_t i = 0; camera_ != nullptr && metric_view_ != nullptr && i < layout_.images(); ++i) {
    for (int row = 0; row < 3; ++row) camera_[16 * i + 4 * row + 3] *= static_cast<double>(metric_[i / frames]);
  }
  if (intrinsics_ != nullptr) intrinsics(numbers_, layout_.images(), layout_.H, layout_.W, intrinsics_);
}

void HostResults::scale_points() noexcept {
  const int64_t count = layout_.frames() * layout_.H * layout_.W * 3;
  for (int64_t clip = 0; clip < layout_.B; ++clip) {
    const auto metres = static_cast<double>(metric_[clip]);
    rescale(points_ + clip * count, count, [&](double value) { return value * metres; });
  }
}

// The known cameras, and depth in their unit: NaN where the poses that were estimated tell no scale. estimated:
// [V,4,4], overwritten.
void HostResults::take_known(int64_t clip, double* estimated) noexcept {
  const int64_t V = layout_.V, pixels = V * layout_.H * layout_.W;
  if (camera_ != nullptr) std::copy_n(known_->camera_to_world(), 16 * V, camera_ + 16 * V * clip);
  if (intrinsics_ != nullptr) std::copy_n(known_->K(), 9 * V, intrinsics_ + 9 * V * clip);
  if (depth_ == nullptr) return;
  camera_to_world(numbers_ + clip * V * size_, size_, V, direction_, estimated);
  const uint8_t* present = present_.data() + clip * V;
  bool is_known = true;
  for (int64_t v = 0; v < V; ++v) {
    const double* pose = estimated + 16 * v;
    is_known = is_known && (present[v] == 0 || std::all_of(pose, pose + 16, [](double n) { return std::isfinite(n); }));
  }
  const double scale = is_known ? known_->scale(estimated, present) : kNan;
  rescale(depth_ + clip * pixels, pixels, [&](double value) { return value / scale; });
}

// Of Depth Anything 3 METRIC, which gives no cameras: K is the known one, and depth is in metres by its focal lengths.
void HostResults::scale_by_focal_length() noexcept {
  const int64_t pixels = layout_.H * layout_.W;
  for (int64_t i = 0; i < layout_.images(); ++i) {
    const double* K = known_->K() + 9 * (i % layout_.V);
    if (intrinsics_ != nullptr) std::copy_n(K, 9, intrinsics_ + 9 * i);
    const double metres = (K[0] + K[4]) / 2 / kFocalOfMetres;
    if (depth_ != nullptr) rescale(depth_ + i * pixels, pixels, [&](double value) { return value * metres; });
  }
}

void HostResults::leave_out_absent() noexcept {
  for (int64_t i = 0; i < layout_.images(); ++i) {
    if (present_[static_cast<size_t>(i)] != 0) continue;
    if (camera_ != nullptr) std::fill_n(camera_ + 16 * i, 16, kNan);
    if (intrinsics_ != nullptr) std::fill_n(intrinsics_ + 9 * i, 9, kNan);
  }
}

}  // namespace page4d
