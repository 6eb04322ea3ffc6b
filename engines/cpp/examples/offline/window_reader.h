// A clip's images, window by window, the next one decoded while the caller works on this one.
#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <vector>

#include "frame_folder.h"
#include "page4d/engine_info.h"
#include "page4d/image.h"

namespace offline {

// The images of one window, in the clip's own size: [T*V], t slow, v fast.
class WindowImages {
 public:
  std::vector<Pixels> frames, masks,
      keypoints;  // masks and keypoints: empty where the engines read none, or the clip has none

  // As Pipeline::run takes them: valid as long as these images.
  static std::vector<page4d::Image> views(const std::vector<Pixels>& images);
};

// Throws page4d::Error kUsage where a clip does not go with engines: B is not 1, another number of cameras than V, no
// keypoints or cameras where they are read.
void check_clip(const FrameFolder& folder, const page4d::EngineInfo& engines);

class WindowReader {
 public:
  // starts: first times of the windows.
  WindowReader(const FrameFolder& folder, const page4d::EngineInfo& engines, std::vector<int64_t> starts);
  WindowReader(const WindowReader&) = delete;
  WindowReader& operator=(const WindowReader&) = delete;
  ~WindowReader();

  // The next window's images; to be called as often as there are windows. Throws page4d::Error kUsage for an image that
  // cannot be decoded.
  WindowImages next();
  // What reading the windows so far took, most of it hidden behind the caller's work.
  double seconds() const { return seconds_; }

 private:
  struct Read {
    WindowImages images;
    double seconds = 0;
  };
  Read read(int64_t start) const;
  void read_ahead();

  const FrameFolder& folder_;
  const page4d::EngineInfo& engines_;
  std::vector<int64_t> starts_;
  size_t window_ = 0;
  double seconds_ = 0;
  std::atomic<bool> stop_{false};
  std::future<Read> ahead_;
};

}  // namespace offline
