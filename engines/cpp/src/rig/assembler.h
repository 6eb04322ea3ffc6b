// Matches the stamps of several cameras to timesteps. Knows no images: a slot is a number that the caller chooses.
#pragma once

#include <cstdint>
#include <vector>

#include "page4d/rig.h"

namespace page4d {

// Waiting images are one queue per camera, in the order of their stamps; only the front of each queue is compared.
//
// If all fronts are within the tolerance, they are a timestep. If not, the earliest front cannot be part of a complete
// timestep: the camera that is too far ahead has no earlier image. So no other matching gives more complete timesteps
// (with kRepeat: if images of different timesteps are further apart than the tolerance, since an image that was used in
// an incomplete timestep is missing in a later one). Only the constructor allocates; one thread at a time.
//
// With kAbsent a camera whose newest image is older than the patience, by the newest of all stamps, is lost: timesteps
// do not wait for it until it pushes again. So a camera that dies delays windows once, by the patience. Until its first
// image a camera counts as if it had pushed the rig's first one.
class Assembler {
 public:
  struct Entry {
    int64_t stamp = kNoStamp;
    int slot = -1;  // -1: the camera has no image of this timestep
  };

  enum class Step {
    kNothing,  // waiting images may still become complete
    kTime,     // time() is complete, or its caller can do with what there is
    kDropped,  // dropped() is part of no timestep
  };

  // pending: images of one camera that may wait; one more ends the wait.
  Assembler(int cameras, const RigOptions& options);

  // Whether an image would be dropped: not later than its camera's image before, or its timestep is over.
  bool late(int camera, int64_t stamp) const noexcept;
  // False: the image is late, and the caller keeps the slot. After each push, call step() until kNothing.
  bool push(int camera, int64_t stamp, int slot) noexcept;
  Step step() noexcept;

  // One entry per camera, until the next step.
  const Entry* time() const noexcept { return time_.data(); }
  // Nanoseconds between its first and its last stamp.
  int64_t skew() const noexcept { return skew_; }
  int dropped_camera() const noexcept { return dropped_camera_; }
  int dropped_slot() const noexcept { return dropped_slot_; }
  // Newest stamp of a camera; kNoStamp before the first.
  int64_t last_stamp(int camera) const noexcept { return last_[static_cast<size_t>(camera)]; }

 private:
  const Entry& front(int camera) const noexcept {
    return queues_[static_cast<size_t>(camera) * depth_ + fronts_[static_cast<size_t>(camera)]];
  }
  bool waits(int camera) const noexcept { return counts_[static_cast<size_t>(camera)] > 0; }
  bool is_lost(int camera) const noexcept;
  Entry pop(int camera) noexcept;

  int cameras_;
  int64_t tolerance_, patience_;  // nanoseconds
  bool keeps_incomplete_;         // timesteps
  bool leaves_lost_;              // cameras
  size_t depth_;
  std::vector<Entry> queues_;            // [cameras, depth], each a ring
  std::vector<size_t> fronts_, counts_;  // [cameras]
  std::vector<int64_t> last_;            // [cameras]
  int64_t first_, newest_, given_up_;    // stamps, of all cameras; images up to given_up_ are late
  std::vector<Entry> time_;
  int64_t skew_ = 0;
  int dropped_camera_ = -1, dropped_slot_ = -1;
};

}  // namespace page4d
