// A live rig: images of several cameras as they come, put together to windows.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "page4d/engine_info.h"
#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/image.h"

namespace page4d {

// What happens to a time for which a camera has no image.
enum class Missing {
  // No such time is made, and the images of the other cameras are dropped: without that camera there are no windows.
  kSkip,
  // The camera's last image stands in, and is counted; before its first image, black. An image that lies outside the
  // tolerance of all others makes a time of its own.
  kRepeat,
};

struct RigOptions {
  // Times from a window's start to the next's; 0: T, windows without overlap.
  int64_t stride = 0;
  // Seconds that stamps of one time may lie apart, first to last; less than half of what lies between two times.
  double tolerance = 0.015;
  // Seconds after a time's first image that the others are waited for, by the stamps that come in; not below tolerance.
  double patience = 0.1;
  // Images of one camera that may wait for the others; more of them end the patience: above patience times rate.
  int pending = 8;
  Missing missing = Missing::kSkip;
  // Windows that are kept for a slow consumer; then the oldest is dropped.
  int windows = 2;
  // Size of the images that come; 0: the engines' own.
  int frame_width = 0, frame_height = 0;
  Fit fit = Fit::kNone;
};

// pushed = used + late + unmatched, and what still waits.
struct CameraCounts {
  int64_t pushed = 0;     // without those that were refused
  int64_t used = 0;       // became part of a time
  int64_t late = 0;       // dropped: its time had passed, or its stamp was not after the one before
  int64_t unmatched = 0;  // dropped: another camera had nothing within the tolerance, or stayed silent for too long
  int64_t repeated = 0;   // times in which its last image stood in
  double last_stamp = 0;  // of its newest image; NaN before the first
};

struct RigCounts {
  int64_t times = 0;            // put together
  int64_t windows = 0;          // made
  int64_t windows_dropped = 0;  // made and never taken, since the consumer was slow
  double largest_skew = 0;      // seconds, between the stamps of one time's own images
  double mean_skew = 0;
};

// What a push gives: how many windows are ready to be taken now.
struct Pushed {
  Status status;
  int ready = 0;
};

// T times that were made one after the other, in the rig's own memory and the engines' size: valid until it is
// released. Where times in between could not be made, the stamps show the gap.
struct Window {
  const Image* images = nullptr;   // T*V, t slow, v fast, RGB: to be given to Pipeline::run
  const double* stamps = nullptr;  // T*V, of each image; NaN of a black one
  const bool* repeated = nullptr;  // T*V, whether an older image or black stands in
  double skew = 0;                 // seconds, the largest of its times
  int64_t number = 0;              // counts all windows that were made, from 0
  // Times that it begins with and the window taken before ended with: for Frames::shared, if that one ran.
  int64_t shared = 0;
};

// A ring of images. push() may be called by one thread per camera, the other calls by any one more; nothing is
// allocated after it was made.
//
// Images are put together by their stamps alone, in whatever order the cameras' threads come. A stamp that goes back is
// late, however far it goes: after the clock was set back, make a new rig.
//
// Memory, all of it taken when it is made: V * (windows * stride + 2 T + pending) + 1 images of the engines' size, H W
// 3 bytes each. For T = 4, V = 4, 392x518 and the options' defaults that is 97 images, 59 MB.
class PAGE4D_API Rig {
 public:
  // Throws Error and nothing else: kUsage for options out of range, or images that do not fit the engines;
  // kOutOfMemory.
  Rig(const EngineInfo& engines, const RigOptions& options = {});
  Rig(Rig&&) noexcept;
  Rig& operator=(Rig&&) noexcept;
  ~Rig();

  // An image of a camera (a view, from 0), brought to the engines' size before the call returns.
  // stamp: seconds, on one clock for all cameras. kUsage: no such camera, an image of another size or not in host
  // memory, a stamp that is not finite, a camera of which another thread pushes an image right now. A late image is no
  // failure: it is counted.
  Pushed push(int camera, const Image& image, double stamp) noexcept;
  // The oldest window that is ready. false, and `window` stays as it is: there is none, or the one taken before was not
  // released.
  bool take(Window& window) noexcept;
  // Its images may be overwritten from now on, and `window` is empty. Does nothing to a window that is not the one
  // taken last.
  void release(Window& window) noexcept;
  // Sleeps until a window is ready, or this long. Returns whether one is.
  bool wait(double seconds) noexcept;

  RigCounts counts() const noexcept;
  // Zeros, and NaN, where there is no such camera.
  CameraCounts counts(int camera) const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace page4d
