#include "rig/ring.h"

#include <algorithm>
#include <limits>
#include <new>

#include "text.h"

namespace page4d {
namespace {

// Zeros: the black image, and every page of the memory is mapped before the first image comes.
std::unique_ptr<uint8_t[]> images(int64_t count, int64_t bytes) {
  int64_t size = 0;
  const bool is_countable = count <= std::numeric_limits<int>::max() && !__builtin_mul_overflow(count, bytes, &size);
  try {
    if (!is_countable) throw std::bad_alloc();
    return std::make_unique<uint8_t[]>(static_cast<size_t>(size));
  } catch (const std::bad_alloc&) {
    throw Error(Code::kOutOfMemory, "the images of the rig do not fit this machine's memory")
        .got(text(count, " images of ", bytes, " bytes"))
        .hint("fewer windows, fewer pending images, a smaller stride");
  }
}

}  // namespace

Ring::Ring(const Layout& layout, int64_t stride, int windows, int pending)
    : layout_(layout),
      stride_(stride),
      most_ready_(windows),
      slots_per_camera_(static_cast<int>(windows * stride + 2 * layout.T) + pending),
      kept_times_(windows * stride + layout.T),
      pixels_(images(layout.V * slots_per_camera_ + 1, layout.image_bytes())),
      holders_(static_cast<size_t>(layout.V * slots_per_camera_ + 1)),
      views_(static_cast<size_t>(kept_times_ * layout.V)),
      skews_(static_cast<size_t>(kept_times_)),
      taken_slots_(static_cast<size_t>(layout.frames())),
      taken_images_(static_cast<size_t>(layout.frames())),
      taken_stamps_(static_cast<size_t>(layout.frames())),
      taken_present_(static_cast<size_t>(layout.frames()), 1),
      taken_repeated_(std::make_unique<bool[]>(static_cast<size_t>(layout.frames()))) {
  hold(kBlack);
}

int Ring::reserve(int camera) noexcept {
  int slot = kBlack + 1 + camera * slots_per_camera_;
  while (holders_[static_cast<size_t>(slot)] != 0) ++slot;
  hold(slot);
  return slot;
}

bool Ring::add_time(double skew) noexcept {
  skews_[static_cast<size_t>(times_ % kept_times_)] = skew;
  ++times_;
  if (times_ < completed_ * stride_ + layout_.T) return false;
  with_holes_ += has_hole(completed_ * stride_);
  ++completed_;
  if (ready_ == most_ready_) {
    ++dropped_;
  } else {
    ++ready_;
  }
  for (const int64_t needed = (completed_ - ready_) * stride_; oldest_ < needed; ++oldest_)
    for (int64_t v = 0; v < layout_.V; ++v) drop(views(oldest_)[v].slot);
  return true;
}

// Whether an image of the T timesteps from `start` on is absent.
bool Ring::has_hole(int64_t start) noexcept {
  for (int64_t time = start; time < start + layout_.T; ++time) {
    const View* first = views(time);
    if (std::any_of(first, first + layout_.V, [](const View& view) { return !view.is_present; })) return true;
  }
  return false;
}

bool Ring::take(Window& window) noexcept {
  if (taken_ || ready_ == 0) return false;
  taken_ = true;
  taken_number_ = completed_ - ready_;
  const int64_t shared =
      last_taken_ < 0 ? 0 : std::max<int64_t>(layout_.T - (taken_number_ - last_taken_) * stride_, 0);
  last_taken_ = taken_number_;
  window = {};
  window.images = taken_images_.data();
  window.stamps = taken_stamps_.data();
  window.repeated = taken_repeated_.get();
  window.present = taken_present_.data();
  window.number = taken_number_;
  window.shared = shared;
  size_t i = 0;
  for (int64_t time = taken_number_ * stride_; time < taken_number_ * stride_ + layout_.T; ++time) {
    window.skew = std::max(window.skew, skews_[static_cast<size_t>(time % kept_times_)]);
    for (int64_t v = 0; v < layout_.V; ++v, ++i) {
      const View& view = views(time)[v];
      hold(view.slot);
      taken_slots_[i] = view.slot;
      taken_images_[i] = {pixels(view.slot),           static_cast<int>(layout_.W),
                          static_cast<int>(layout_.H), 0,
                          PixelFormat::kRgb8,          Memory::kHost};
      taken_stamps_[i] = view.stamp;
      taken_repeated_[i] = view.is_repeated;
      taken_present_[i] = view.is_present ? 1 : 0;
    }
  }
  --ready_;
  return true;
}

void Ring::release(Window& window) noexcept {
  if (!taken_ || window.images != taken_images_.data() || window.number != taken_number_) return;
  taken_ = false;
  for (const int slot : taken_slots_) drop(slot);
  window = {};
}

}  // namespace page4d
