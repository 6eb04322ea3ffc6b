#include "window_reader.h"

#include <chrono>

#include "page4d/error.h"
#include "text.h"

namespace offline {

std::vector<page4d::Image> WindowImages::views(const std::vector<Pixels>& images) {
  std::vector<page4d::Image> result;
  for (const Pixels& pixels : images) {
    page4d::Image image;
    image.data = pixels.bytes.data();
    image.width = pixels.width, image.height = pixels.height;
    image.format = pixels.colour == Colour::kRgb ? page4d::PixelFormat::kRgb8 : page4d::PixelFormat::kMono8;
    result.push_back(image);
  }
  return result;
}

void check_clip(const FrameFolder& folder, const page4d::EngineInfo& engines) {
  using page4d::Code;
  using page4d::Error;
  const page4d::Layout& layout = engines.layout;
  const std::vector<std::string>& names = folder.camera_names();
  if (layout.B != 1)
    throw Error(Code::kUsage, "frames are read for one clip at a time")
        .got("B = " + std::to_string(layout.B))
        .allowed("an engine for B = 1");
  if (static_cast<int64_t>(names.size()) != layout.V) {
    const std::string count = std::to_string(names.size());
    throw Error(Code::kUsage, "the clip has another number of cameras than the engine has views")
        .got(count + (folder.photos() ? " photos: " : " cameras: ") + joined(names))
        .allowed("V = " + std::to_string(layout.V))
        .hint("page4d-export --T " + std::to_string(layout.T) + " --V " + count);
  }
  if (engines.input("keypoints") != nullptr && !folder.has_keypoints()) {
    throw Error(Code::kUsage, "the engine reads keypoint maps, and the clip has none")
        .allowed("keypoints/<camera>/<frame>.png beside the frames")
        .hint("--keypoints FOLDER");
  }
  if (engines.input("fundamental") != nullptr && folder.cameras().empty()) {
    throw Error(Code::kUsage, "the engine reads the cameras (for its epipolar prior), and the clip has none")
        .allowed("cameras.json beside the frames")
        .hint("--cameras FILE");
  }
}

WindowReader::WindowReader(const FrameFolder& folder, const page4d::EngineInfo& engines, std::vector<int64_t> starts)
    : folder_(folder), engines_(engines), starts_(std::move(starts)) {
  read_ahead();
}

WindowReader::~WindowReader() {
  stop_ = true;
  if (ahead_.valid()) ahead_.wait();
}

WindowImages WindowReader::next() {
  Read done = ahead_.get();
  seconds_ += done.seconds;
  window_ += 1;
  read_ahead();
  return std::move(done.images);
}

void WindowReader::read_ahead() {
  if (window_ < starts_.size())
    ahead_ = std::async(std::launch::async, [this, start = starts_[window_]] { return read(start); });
}

WindowReader::Read WindowReader::read(int64_t start) const {
  const auto began = std::chrono::steady_clock::now();
  Read done;
  const bool masks = engines_.input("mask_ext") != nullptr && folder_.has_masks(),
             keypoints = engines_.input("keypoints") != nullptr;
  for (int64_t t = start; t < start + engines_.layout.T; ++t) {
    for (int64_t v = 0; v < engines_.layout.V && !stop_; ++v) {
      done.images.frames.push_back(folder_.frame(t, v));
      if (masks) done.images.masks.push_back(folder_.mask(t, v));
      if (keypoints) done.images.keypoints.push_back(folder_.keypoints(t, v));
    }
  }
  done.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return done;
}

}  // namespace offline
