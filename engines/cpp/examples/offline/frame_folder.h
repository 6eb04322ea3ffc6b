// A clip on disk: frames per camera, and where given their masks, keypoint heat maps and cameras.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "image_file.h"
#include "page4d/image.h"
#include "page4d/layout.h"

namespace offline {

// What images are that lie in no camera's folder.
enum class Loose {
  kRefused,
  kViews,  // photos of one time: every one is a view, named as its file
  kTimes,  // frames of one camera, named as their folder
};

// What an engine of this layout would take them for; refused where it has several times and several views.
constexpr Loose loose_of(const page4d::Layout& layout) {
  return layout.V == 1 ? Loose::kTimes : layout.T == 1 ? Loose::kViews : Loose::kRefused;
}

// What is not given is looked for beside the frames' folder.
struct Companions {
  std::optional<std::filesystem::path> masks, cameras, keypoints;
};

// V cameras that saw the same times. Views are in the order of `camera_names`, times in that of `frame_names()`.
class FrameFolder {
 public:
  using Path = std::filesystem::path;
  using Files = std::vector<std::vector<Path>>;  // [V][times]
  using Size = std::pair<int, int>;              // width and height

  // Finds a clip's files and checks that they fit together; of the images only the headers are read.
  // path: holds <camera>/<frame>.{png,jpg,jpeg}, itself or in its folder `frames`; or, with `loose`, the images
  // themselves. Throws page4d::Error kUsage: something that was named is missing, no cameras or frames, unequal counts,
  // mixed sizes, an image that cannot be read, masks or keypoints that lack a frame, cameras of other names or another
  // size.
  static FrameFolder open(const Path& path, const Companions& companions, Loose loose);

  const Path& path() const { return path_; }
  // Names of the folders, in natural order (cam2 before cam10).
  const std::vector<std::string>& camera_names() const { return camera_names_; }
  // The first camera's frames, without suffix.
  std::vector<std::string> frame_names() const;
  // Of every frame, after its EXIF orientation.
  Size size() const { return size_; }
  // Times that every camera has.
  int64_t count() const { return static_cast<int64_t>(frames_[0].size()); }
  // Whether the views are single photos, named as their files.
  bool photos() const { return photos_; }
  bool has_masks() const { return !masks_.empty(); }
  bool has_keypoints() const { return !keypoints_.empty(); }
  // One per view, or none.
  const std::vector<page4d::Camera>& cameras() const { return cameras_; }

  // RGB, or grey for masks and keypoint maps. Throw page4d::Error kUsage where the file cannot be decoded.
  Pixels frame(int64_t t, int64_t v) const { return decode(frames_, t, v, "frame", Colour::kRgb); }
  Pixels mask(int64_t t, int64_t v) const { return decode(masks_, t, v, "mask", Colour::kGrey); }
  Pixels keypoints(int64_t t, int64_t v) const { return decode(keypoints_, t, v, "keypoint map", Colour::kGrey); }

 private:
  Pixels decode(const Files& files, int64_t t, int64_t v, const std::string& kind, Colour colour) const;
  Files companions(const char* folder, const char* kind, const std::optional<Path>& given, const Path& beside) const;
  std::vector<page4d::Camera> rig(const std::optional<Path>& given, const Path& beside) const;
  void check_times() const;
  void check_sizes();

  Path path_;
  std::vector<std::string> camera_names_;
  Size size_;
  Files frames_, masks_, keypoints_;
  std::vector<page4d::Camera> cameras_;
  bool photos_ = false;
};

// Sorts numbers inside names by their value.
bool natural_less(const std::string& one, const std::string& other);

}  // namespace offline
