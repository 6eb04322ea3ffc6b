// The images of a rig: slots that timesteps and windows share, without copies.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "page4d/layout.h"
#include "page4d/rig.h"

namespace page4d {

// A slot is one image, and counts its holders: the push that writes it, the assembler in which it waits, the timesteps
// that it is part of, the window that was taken, the camera whose last image it is. It is written to only when the last
// holder has dropped it.
//
// Window n is the timesteps n * stride to n * stride + T. The windows that are ready are always the newest, so the
// timesteps to keep are contiguous: from the first of the oldest ready window to the newest, at most windows * stride +
// T - 1, and one more while a window becomes complete. A camera has slots for these timesteps (its last image is one of
// them), for the taken window (T), for waiting images (pending), and one to write to. So reserve() never fails.
//
// Only the constructor allocates; the caller locks.
class Ring {
 public:
  // A black image, for cameras before their first, and for absent images. Never released.
  static constexpr int kBlack = 0;

  // Throws Error kOutOfMemory. stride, windows and pending are 1 or more.
  Ring(const Layout& layout, int64_t stride, int windows, int pending);

  // A free slot of this camera, with one holder.
  int reserve(int camera) noexcept;
  void hold(int slot) noexcept { ++holders_[static_cast<size_t>(slot)]; }
  void drop(int slot) noexcept { --holders_[static_cast<size_t>(slot)]; }
  uint8_t* pixels(int slot) noexcept {
    return &pixels_[static_cast<size_t>(slot) * static_cast<size_t>(layout_.image_bytes())];
  }

  // An image of a timestep.
  struct View {
    int slot = kBlack;
    int64_t stamp = kNoStamp;
    bool is_repeated = false, is_present = true;
  };

  // The next timestep: set_view for every view, then add_time. Takes over the caller's hold of each slot.
  void set_view(int number, const View& view) noexcept { views(times_)[number] = view; }
  // skew: seconds. Returns whether it completed a window.
  bool add_time(double skew) noexcept;

  int ready() const noexcept { return ready_; }
  bool take(Window& window) noexcept;
  void release(Window& window) noexcept;

  int64_t times() const noexcept { return times_; }
  int64_t windows_completed() const noexcept { return completed_; }
  int64_t windows_dropped() const noexcept { return dropped_; }
  int64_t windows_with_holes() const noexcept { return with_holes_; }

 private:
  bool has_hole(int64_t start) noexcept;
  View* views(int64_t time) noexcept { return &views_[static_cast<size_t>(time % kept_times_ * layout_.V)]; }

  Layout layout_;
  int64_t stride_;
  int most_ready_;
  int slots_per_camera_;
  int64_t kept_times_;
  std::unique_ptr<uint8_t[]> pixels_;
  std::vector<int> holders_;
  std::vector<View> views_;    // [kept_times, V]: timestep t is at t mod kept_times
  std::vector<double> skews_;  // [kept_times]
  int64_t oldest_ = 0, times_ = 0, completed_ = 0, dropped_ = 0, with_holes_ = 0;
  int ready_ = 0;

  bool taken_ = false;
  int64_t taken_number_ = 0, last_taken_ = -1;
  std::vector<int> taken_slots_;  // [T,V], as the next four
  std::vector<Image> taken_images_;
  std::vector<int64_t> taken_stamps_;
  std::vector<uint8_t> taken_present_;
  std::unique_ptr<bool[]> taken_repeated_;
};

}  // namespace page4d
