// What a caller gives for a window, before anything is done with it.
#include <algorithm>

#include "pixels/rgb_row.h"
#include "runtime/output_names.h"
#include "runtime/window.h"

namespace page4d {
namespace {

constexpr char kNoSuchOutput[] =
    "memory is given for an output that these engines lack\n  allowed: those of EngineInfo::outputs";

}  // namespace

Status WindowRunner::check_images(const char* what, const Image* images, const uint8_t* present, bool mono) noexcept {
  const Image* first = nullptr;  // that is present
  const int64_t count = manifest_.layout.images(), V = manifest_.layout.V, T = manifest_.layout.T;
  for (int64_t i = 0; i < count; ++i) {
    const Image& image = images[i];
    const int t = static_cast<int>(i / V % T), v = static_cast<int>(i % V);
    if (present != nullptr && present[i] == 0) continue;
    first = first == nullptr ? &image : first;
    if (image.data == nullptr) return refuse(Code::kUsage, "%s of timestep %d, view %d is not there", what, t, v);
    if (image.width != fitter_.source_width() || image.height != fitter_.source_height()) {
      return refuse(Code::kUsage,
                    "%s of timestep %d, view %d has another size than the pipeline was loaded for\n  got:     %dx%d\n  "
                    "allowed: %dx%d",
                    what, t, v, image.width, image.height, fitter_.source_width(), fitter_.source_height());
    }
    const size_t least = static_cast<size_t>(image.width) * static_cast<size_t>(bytes_per_pixel(image.format));
    if (image.row_bytes() < least) {
      return refuse(
          Code::kUsage,
          "%s of timestep %d, view %d has rows that overlap\n  got:     a pitch of %zu bytes\n  allowed: %zu or more",
          what, t, v, image.pitch, least);
    }
    if (const char* reason = unreadable(image); reason != nullptr)
      return refuse(Code::kUsage, "%s of timestep %d, view %d: %s", what, t, v, reason);
    if (mono && (image.format != PixelFormat::kMono8 || image.memory != Memory::kHost)) {
      return refuse(Code::kUsage, "%s of timestep %d, view %d cannot be used\n  allowed: one channel, in host memory",
                    what, t, v);
    }
    if (image.memory != first->memory)
      return refuse(Code::kUsage, "images are partly on the device, partly on the host\n  allowed: one of both");
    if (image.memory == Memory::kDevice && (on_host_ || image.format != PixelFormat::kRgb8 ||
                                            image.width != manifest_.layout.W || image.height != manifest_.layout.H)) {
      return refuse(
          Code::kUsage,
          "%s of timestep %d, view %d cannot be used where it is\n  got:     device memory\n  allowed: on a GPU, "
          "RGB, in the engines' size %dx%d",
          what, t, v, static_cast<int>(manifest_.layout.W), static_cast<int>(manifest_.layout.H));
    }
  }
  return {};
}

Status WindowRunner::check_present(const uint8_t* present) noexcept {
  const int64_t views = manifest_.layout.V, frames = manifest_.layout.frames();
  int64_t there = 0;  // of a clip
  for (int64_t i = 0; present != nullptr && i < manifest_.layout.images(); ++i) {
    if (i % frames == 0) there = 0;
    there += present[i] != 0;
    if (present[i] == 0 && !info_.takes_present) {
      return refuse(Code::kUsage,
                    "the image of timestep %d, view %d is absent, and these engines need every image\n  try:     "
                    "page4d-export --absent-views",
                    static_cast<int>(i % frames / views), static_cast<int>(i % views));
    }
    if (i % frames == frames - 1 && there == 0)
      return refuse(Code::kUsage, "every image of a clip is absent\n  allowed: 1 or more that are there");
  }
  return {};
}

// An image that was absent from the window before was not encoded.
Status WindowRunner::check_shared(const Frames& frames) noexcept {
  const Layout& layout = manifest_.layout;
  for (int64_t i = 0; i < frames.shared * layout.V; ++i) {
    const bool was_present = absence_->is_present(i + (layout.T - frames.shared) * layout.V);
    if (was_present || (frames.present != nullptr && frames.present[i] == 0)) continue;
    return refuse(Code::kUsage,
                  "a shared time has an image that was absent from the window before\n  got:     timestep %d, view %d\n"
                  "  allowed: an image that is absent again\n  try:     fewer shared times",
                  static_cast<int>(i / layout.V), static_cast<int>(i % layout.V));
  }
  return {};
}

Status WindowRunner::check(const Frames& frames, const Outputs& outputs) noexcept {
  if (frames.images == nullptr)
    return refuse(Code::kUsage, "a window has no images\n  allowed: %d", static_cast<int>(manifest_.layout.images()));
  if (Status status = check_present(frames.present); !status) return status;
  if (Status status = check_images("the image", frames.images, frames.present, false); !status) return status;
  if (frames.shared != 0) {
    const int T = static_cast<int>(manifest_.layout.T), shared = static_cast<int>(frames.shared);
    if (frames.shared < 0 || frames.shared >= manifest_.layout.T) {
      return refuse(
          Code::kUsage,
          "a window shares a part of its times with the one before\n  got:     shared = %d\n  allowed: 0 to %d", shared,
          T - 1);
    }
    if (manifest_.layout.B > 1 || !slides() || !is_whole_) {
      const char* got = manifest_.layout.B > 1 ? "engines for several clips"
                        : !slides()            ? "a pipeline that keeps nothing"
                                               : "no window before";
      return refuse(Code::kUsage,
                    "shared times need what the encoder made of the window before\n  got:     %s\n  try:     "
                    "Options::sliding, and a first window",
                    got);
    }
    if (Status status = check_shared(frames); !status) return status;
  }
  if (frames.masks != nullptr && masks_.view == nullptr) {
    return refuse(
        Code::kUsage,
        "these engines are of a published model and take no external mask\n  got:     masks\n  allowed: no masks");
  }
  if (frames.keypoints != nullptr && keypoints_.view == nullptr) {
    return refuse(Code::kUsage, "these engines take no keypoints\n  try:     page4d-export --keypoints");
  }
  if (frames.keypoints == nullptr && keypoints_.view != nullptr) {
    return refuse(Code::kUsage,
                  "these engines were exported with --keypoints and need them\n  allowed: a heat map for every image");
  }
  if (frames.memory != nullptr && memory_.view == nullptr)
    return refuse(Code::kUsage, "these engines have no memory\n  got:     memory");
  if (frames.masks != nullptr) {
    if (Status status = check_images("the mask", frames.masks, frames.present, true); !status) return status;
  }
  if (frames.keypoints != nullptr) {
    if (Status status = check_images("the keypoint map", frames.keypoints, frames.present, true); !status)
      return status;
  }
  for (const Target& target : targets_) {
    const Output& output = of(outputs, target);
    if (output.data == nullptr) continue;
    if (output.bytes < target.bytes) {
      return refuse(Code::kUsage, "the memory for %s is too small\n  got:     %zu bytes\n  allowed: %zu or more",
                    target.name.c_str(), output.bytes, target.bytes);
    }
    if (output.memory == Memory::kDevice && (on_host_ || host_results_->computes(target.member))) {
      return refuse(Code::kUsage,
                    "%s cannot be written to this memory\n  got:     device memory\n  allowed: host memory",
                    target.name.c_str());
    }
  }
  for (const NamedOutput& output : kNamedOutputs) {
    const bool exists = std::any_of(targets_.begin(), targets_.end(),
                                    [&](const Target& target) { return target.member == output.member; });
    if ((outputs.*output.member).data != nullptr && !exists) return refuse(Code::kUsage, kNoSuchOutput);
  }
  for (int layer = layers_; layer < Outputs::kMostLayers; ++layer) {
    if (outputs.layers[layer].data != nullptr) return refuse(Code::kUsage, kNoSuchOutput);
  }
  return {};
}

}  // namespace page4d
