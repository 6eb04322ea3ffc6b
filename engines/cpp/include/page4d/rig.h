// A live rig: images of several cameras as they come, put together to windows.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>

#include "page4d/engine_info.h"
#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/image.h"

namespace page4d {

// In place of a stamp where there is no image. Stamps are nanoseconds, on one clock for all cameras, whose zero is the
// caller's choice.
constexpr int64_t kNoStamp = std::numeric_limits<int64_t>::min();

// What happens to a timestep for which a camera has no image.
enum class Missing {
  // The timestep is dropped, with the images of the other cameras: while a camera is silent there are no windows.
  kSkip,
  // The camera's last image is used again, and counted; black before its first image. An image that is outside the
  // tolerance of all others becomes a timestep of its own.
  kRepeat,
  // The timestep becomes part of the window without this image: Window::present, for Frames::present. Only with
  // engines that take it: page4d-export --absent-views. Timesteps are made as for kRepeat, but do not wait for a camera
  // that is lost, which is silent for longer than `patience`, until it pushes again. So a camera that dies delays
  // windows once, and a camera that comes back may lose one image, as late.
  kAbsent,
};

struct RigOptions {
  // Timesteps from the start of a window to the start of the next; 0: T, windows without overlap.
  int64_t stride = 0;
  // Seconds between the first and the last stamp of a timestep, at most; less than half the time between two timesteps.
  double tolerance = 0.015;
  // Seconds to wait for the other cameras after the first image of a timestep, by the stamps; tolerance or more. With
  // kAbsent, more than the time between two images of any camera.
  double patience = 0.1;
  // Images of one camera that may wait for the others; one more ends the wait. More than patience times frame rate.
  int pending = 8;
  Missing missing = Missing::kSkip;
  // Windows kept for a slow consumer; then the oldest is dropped.
  int windows = 2;
  // Size of the images that are pushed; 0: the engines' size.
  int frame_width = 0, frame_height = 0;
  Fit fit = Fit::kNone;
};

// pushed = used + late + unmatched + images that still wait.
struct CameraCounts {
  int64_t pushed = 0;             // without refused images
  int64_t used = 0;               // became part of a timestep
  int64_t late = 0;               // dropped: its timestep was over, or its stamp was not later than the stamp before
  int64_t unmatched = 0;          // dropped: another camera had no image within the tolerance, or was silent too long
  int64_t repeated = 0;           // timesteps in which its last image was used again
  int64_t absent = 0;             // timesteps that were made without an image of it
  int64_t last_stamp = kNoStamp;  // of the newest image; kNoStamp before the first
};

struct RigCounts {
  int64_t times = 0;               // complete
  int64_t windows = 0;             // complete
  int64_t windows_dropped = 0;     // complete and never taken: the consumer was slow
  int64_t windows_with_holes = 0;  // complete, with an image that is absent
  double largest_skew = 0;         // seconds, between the stamps of one timestep
  double mean_skew = 0;
};

// Result of a push; ready: windows that can be taken now.
struct Pushed {
  Status status;
  int ready = 0;
};

// T consecutive timesteps in the rig's own memory and the engines' size, valid until released. Where timesteps in
// between were dropped, the stamps show the gap.
struct Window {
  const Image* images = nullptr;     // T*V, t slow, v fast, RGB: for Frames::images
  const int64_t* stamps = nullptr;   // T*V, of each image; kNoStamp for a black or an absent image
  const bool* repeated = nullptr;    // T*V, whether an older image or black is used instead
  const uint8_t* present = nullptr;  // T*V, 1, or 0 for an absent image: for Frames::present
  double skew = 0;                   // seconds, the largest of its timesteps
  int64_t number = 0;                // counts all complete windows, from 0
  // Timesteps at its start that were at the end of the window taken before: for Frames::shared, if that window ran.
  int64_t shared = 0;
};

// Images of live cameras become windows. push() is called by one thread per camera; take, release and wait by one more
// thread; counts, close and closed by any. All memory is allocated by the constructor. Moved while no thread calls it.
//
// Images are matched by their stamps alone, in whatever order the threads call. An image whose stamp goes back is late,
// however far it goes back: after the clock was set back, make a new rig.
//
// Memory: V * (windows * stride + 2 T + pending) + 1 images of the engines' size, H W 3 bytes each. For T = 4, V = 4,
// 392x518 and default options: 97 images, 59 MB.
class PAGE4D_API Rig {
 public:
  // Throws Error and nothing else: kUsage for options out of range, or images that do not fit the engines;
  // kOutOfMemory.
  Rig(const EngineInfo& engines, const RigOptions& options = {});
  Rig(Rig&&) noexcept;
  Rig& operator=(Rig&&) noexcept;
  ~Rig();

  // Fits an image of a camera (a view, from 0) to the engines' size before the call returns.
  // stamp: nanoseconds. kUsage: no such camera, an image of another size or not in host memory, kNoStamp, a rig that is
  // closed, or another thread is pushing an image of this camera. A late image is counted and is no error.
  Pushed push(int camera, const Image& image, int64_t stamp) noexcept;
  // Stamps are whole nanoseconds: a double since 1970 is 200 ns coarse.
  template <class Stamp, class = std::enable_if_t<std::is_floating_point_v<Stamp>>>
  Pushed push(int camera, const Image& image, Stamp stamp) = delete;
  // The oldest window that is ready. False, with `window` unchanged, if there is none or the window taken before was
  // not released.
  bool take(Window& window) noexcept;
  // Lets the rig overwrite its images, and empties `window`. Ignores any window but the one taken last.
  void release(Window& window) noexcept;
  // Waits until a window is ready, at most so long, infinity included. Returns whether a window is ready and the rig is
  // open.
  bool wait(double seconds) noexcept;
  // Ends the rig: a wait under way, and every later one, returns false at once, and push refuses images. Windows that
  // are ready can still be taken. Join the threads that call the rig before it is destroyed.
  void close() noexcept;
  bool closed() const noexcept;

  RigCounts counts() const noexcept;
  // Zeros and kNoStamp for a camera that does not exist.
  CameraCounts counts(int camera) const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace page4d
