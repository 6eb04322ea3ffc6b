#include "host_steps/host_results.h"

#include <algorithm>
#include <utility>

namespace page4d {
namespace {

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
}

bool HostResults::computes(Output Outputs::* member) const noexcept {
  return member == &Outputs::camera || member == &Outputs::intrinsics ||
         (member == &Outputs::points && metric_view_ != nullptr) ||
         (member == &Outputs::depth && known_ && camera_view_ != nullptr);
}

bool HostResults::is_asked(const Outputs& outputs) const noexcept {
  for (Output Outputs::* member : {&Outputs::camera, &Outputs::intrinsics, &Outputs::points, &Outputs::depth}) {
    if ((outputs.*member).data != nullptr && computes(member)) return true;
  }
  return false;
}

Failure HostResults::put(const Outputs& outputs, Stream stream) noexcept {
  if (!is_asked(outputs)) return nullptr;
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
  if (points_ != nullptr) scale_points();
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

// The known cameras, and depth in their unit. estimated: [V,4,4], overwritten.
void HostResults::take_known(int64_t clip, double* estimated) noexcept {
  const int64_t V = layout_.V, pixels = V * layout_.H * layout_.W;
  if (camera_ != nullptr) std::copy_n(known_->camera_to_world(), 16 * V, camera_ + 16 * V * clip);
  if (intrinsics_ != nullptr) std::copy_n(known_->K(), 9 * V, intrinsics_ + 9 * V * clip);
  if (depth_ == nullptr) return;
  camera_to_world(numbers_ + clip * V * size_, size_, V, direction_, estimated);
  const double scale = known_->scale(estimated);
  rescale(depth_ + clip * pixels, pixels, [&](double value) { return value / scale; });
}

}  // namespace page4d
