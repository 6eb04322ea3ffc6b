// Stamps of several cameras, put together to times. Knows no images: a slot is a number of the caller's.
#pragma once

#include <cstdint>
#include <vector>

#include "page4d/rig.h"

namespace page4d {

// The images that wait are one queue per camera, in the order of their stamps; only the front images are ever looked
// at.
//
// Where all of them lie within the tolerance they are a time. Where they do not, the earliest can never be part of a
// complete time: the camera that is too far ahead has nothing earlier left. So no other choice of pairs makes more
// complete times (for kRepeat: as long as images of different times lie further apart than the tolerance, for an image
// that fell to an incomplete time is lost to a later one). Allocates when it is made, and never after; one thread at a
// time.
class Assembler {
 public:
  struct Entry {
    double stamp = 0;
    int slot = -1;  // -1: the camera has no image of this time
  };

  enum class Step {
    kNothing,  // what waits may still be completed
    kTime,     // time() is complete, or is to be completed with older images
    kDropped,  // dropped() is part of no time
  };

  // pending: images of one camera that may wait; what is beyond ends the patience.
  Assembler(int cameras, const RigOptions& options);

  // Whether an image would be dropped: it is not after its camera's one before, or its time was given up.
  bool late(int camera, double stamp) const noexcept;
  // false: it is late, and the caller keeps the slot. After each push, step() until kNothing.
  bool push(int camera, double stamp, int slot) noexcept;
  Step step() noexcept;

  // One entry per camera, until the next step.
  const Entry* time() const noexcept { return time_.data(); }
  double skew() const noexcept { return skew_; }
  int dropped_camera() const noexcept { return dropped_camera_; }
  int dropped_slot() const noexcept { return dropped_slot_; }
  // Newest stamp of a camera; NaN before the first.
  double last_stamp(int camera) const noexcept;

 private:
  const Entry& front(int camera) const noexcept {
    return queues_[static_cast<size_t>(camera) * depth_ + fronts_[static_cast<size_t>(camera)]];
  }
  bool waits(int camera) const noexcept { return counts_[static_cast<size_t>(camera)] > 0; }
  Entry pop(int camera) noexcept;

  int cameras_;
  double tolerance_, patience_;
  bool repeats_;
  size_t depth_;
  std::vector<Entry> queues_;            // [cameras, depth], each a ring
  std::vector<size_t> fronts_, counts_;  // [cameras]
  std::vector<double> last_;             // [cameras]
  double newest_, given_up_;             // of all cameras; images up to the second come too late
  std::vector<Entry> time_;
  double skew_ = 0;
  int dropped_camera_ = -1, dropped_slot_ = -1;
};

}  // namespace page4d
