#include "frame_folder.h"

#include <algorithm>
#include <map>
#include <set>

#include "camera_file.h"
#include "page4d/error.h"
#include "text.h"

namespace offline {
namespace {

namespace fs = std::filesystem;
using page4d::Code;
using page4d::Error;
using Path = FrameFolder::Path;
using Size = FrameFolder::Size;

constexpr char kLayout[] = "<camera>/<frame>.{png,jpg,jpeg}";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A name without its suffix, and the suffix; a point in front or at the end begins none.
std::pair<std::string, std::string> split(const std::string& name) {
  const size_t point = name.rfind('.');
  if (point == std::string::npos || point == 0 || point + 1 == name.size()) return {name, ""};
  return {name.substr(0, point), name.substr(point)};
}

std::string stem(const Path& file) { return split(file.filename().string()).first; }

bool is_image(const std::string& name) {
  std::string suffix = split(name).second;
  for (char& c : suffix) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg";
}

std::string by(const Size& size) { return std::to_string(size.first) + "x" + std::to_string(size.second); }

std::vector<std::string> entries(const Path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  return names;
}

// The images of one camera in natural order.
std::vector<Path> images(const Path& folder, const std::string& what) {
  std::vector<std::string> names;
  for (std::string& name : entries(folder)) {
    if (is_image(name) && name[0] != '.') names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end(), natural_less);
  if (names.empty())
    throw Error(Code::kUsage, what + " has no images").got(path_text(folder)).allowed("*.png *.jpg *.jpeg");
  std::map<std::string, std::string> stems;
  std::vector<Path> files;
  for (const std::string& name : names) {
    const std::string its = split(name).first;
    const auto [place, is_new] = stems.emplace(its, name);
    if (!is_new)
      throw Error(Code::kUsage, what + " has frame " + its + " twice")
          .got(place->second + ", " + name)
          .allowed("one image per frame");
    files.push_back(folder / name);
  }
  return files;
}

Error no_folder(const std::string& kind, const Path& path) {
  const std::string what =
      fs::exists(path) ? "the path of the " + kind + " is not a folder" : "there is no such folder of " + kind;
  return Error(Code::kUsage, what).got(path_text(path)).allowed(std::string("a folder with ") + kLayout);
}

Error unreadable(const std::string& what, const Path& file, const ImageError& error) {
  return Error(Code::kUsage, what + " cannot be read: " + error.what())
      .got(path_text(file))
      .allowed("a whole PNG or JPEG image");
}

// Width and height after the EXIF orientation, from the header alone.
Size size_of(const Path& file, const std::string& what) {
  try {
    const ImageHeader header = read_header(file);
    return header.orientation >= 5 ? Size(header.height, header.width) : Size(header.width, header.height);
  } catch (const ImageError& error) {
    throw unreadable(what, file, error);
  }
}

}  // namespace

bool natural_less(const std::string& one, const std::string& other) {
  size_t i = 0, j = 0;
  // texts and numbers take turns in both; what is equal so far has as many parts
  while (true) {
    const size_t text_i = i, text_j = j;
    while (i < one.size() && !is_digit(one[i])) ++i;
    while (j < other.size() && !is_digit(other[j])) ++j;
    if (const int order = one.compare(text_i, i - text_i, other, text_j, j - text_j); order != 0) return order < 0;
    if (i == one.size() || j == other.size()) break;
    while (i < one.size() && one[i] == '0') ++i;
    while (j < other.size() && other[j] == '0') ++j;
    const size_t number_i = i, number_j = j;
    while (i < one.size() && is_digit(one[i])) ++i;
    while (j < other.size() && is_digit(other[j])) ++j;
    if (i - number_i != j - number_j) return i - number_i < j - number_j;
    if (const int order = one.compare(number_i, i - number_i, other, number_j, j - number_j); order != 0)
      return order < 0;
  }
  if ((i == one.size()) != (j == other.size())) return i == one.size();
  return one < other;
}

FrameFolder FrameFolder::open(const Path& path, const Companions& companions, Loose loose) {
  if (!fs::is_directory(path)) throw no_folder("frames", path);
  FrameFolder found;
  found.path_ = path;
  const Path root = fs::is_directory(path / "frames") ? path / "frames" : path;
  std::vector<std::string> names = entries(root);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (name[0] != '.' && fs::is_directory(root / name)) found.camera_names_.push_back(name);
  }
  std::sort(found.camera_names_.begin(), found.camera_names_.end(), natural_less);
  const auto image = std::find_if(names.begin(), names.end(), is_image);
  if (!found.camera_names_.empty()) {
    for (const std::string& name : found.camera_names_) found.frames_.push_back(images(root / name, "camera " + name));
    found.check_times();
  } else if (image != names.end() && loose != Loose::kRefused) {
    const std::vector<Path> files = images(root, "the folder");
    found.photos_ = loose == Loose::kViews;
    if (found.photos_) {
      for (const Path& file : files) {
        found.camera_names_.push_back(stem(file));
        found.frames_.push_back({file});
      }
    } else {
      found.camera_names_.push_back(fs::canonical(root).filename().string());
      found.frames_.push_back(files);
    }
  } else {
    Error error(Code::kUsage, "the frames' folder has no camera folders");
    error.got(path_text(root)).allowed(kLayout);
    if (image != names.end())
      error.hint("move the images into a folder per camera, as " + path_text(root / "cam0" / *image));
    throw error;
  }
  found.check_sizes();
  const Path beside = Path(path_text(fs::absolute(root).lexically_normal())).parent_path();
  if (!found.photos_ || companions.masks) found.masks_ = found.companions("masks", "mask", companions.masks, beside);
  if (!found.photos_ || companions.keypoints)
    found.keypoints_ = found.companions("keypoints", "keypoint map", companions.keypoints, beside);
  if (!found.photos_ || companions.cameras) found.cameras_ = found.rig(companions.cameras, beside);
  return found;
}

std::vector<std::string> FrameFolder::frame_names() const {
  std::vector<std::string> names;
  std::transform(frames_[0].begin(), frames_[0].end(), std::back_inserter(names), stem);
  return names;
}

// Every camera must have the same times: as many frames, and the same names if they share names at all.
void FrameFolder::check_times() const {
  size_t longest = 0;
  std::vector<std::set<std::string>> stems(frames_.size());
  for (size_t v = 0; v < frames_.size(); ++v) {
    if (frames_[v].size() > frames_[longest].size()) longest = v;
    for (const Path& file : frames_[v]) stems[v].insert(stem(file));
  }
  const std::string& longest_name = camera_names_[longest];
  const size_t most = frames_[longest].size();
  for (size_t v = 0; v < frames_.size(); ++v) {
    const std::string &name = camera_names_[v], count = std::to_string(frames_[v].size());
    const auto known = [&](const Path& file) { return stems[v].count(stem(file)) != 0; };
    const auto& reference = frames_[longest];
    const bool shared = std::any_of(reference.begin(), reference.end(), known);
    const auto missing = shared ? std::find_if_not(reference.begin(), reference.end(), known) : reference.end();
    const bool lacks = missing != reference.end();
    if (frames_[v].size() != most) {
      const std::string gap = lacks ? "; the first that camera " + name + " lacks is " + stem(*missing) : "";
      throw Error(Code::kUsage, "the cameras have different numbers of frames")
          .got("camera " + name + ": " + count + ", camera " + longest_name + ": " + std::to_string(most) + gap)
          .allowed("one frame per camera and time");
    }
    if (lacks) {
      throw Error(Code::kUsage,
                  "camera " + name + " has no frame " + stem(*missing) + ", which camera " + longest_name + " has")
          .got(count + " frames each, of different names")
          .allowed("frames of one time under one name in all cameras, or no name in common");
    }
  }
}

void FrameFolder::check_sizes() {
  std::vector<std::vector<Size>> sizes(frames_.size());
  for (size_t v = 0; v < frames_.size(); ++v) {
    for (const Path& file : frames_[v])
      sizes[v].push_back(size_of(file, "camera " + camera_names_[v] + ", frame " + file.filename().string()));
  }
  size_ = sizes[0][0];
  for (size_t v = 0; v < frames_.size(); ++v) {
    for (size_t t = 0; t < frames_[v].size(); ++t) {
      if (sizes[v][t] == size_) continue;
      throw Error(Code::kUsage, "the frames are of different sizes: camera " + camera_names_[v] + ", frame " +
                                    frames_[v][t].filename().string())
          .got(by(sizes[v][t]))
          .allowed(by(size_) + ", as camera " + camera_names_[0] + ", frame " + frames_[0][0].filename().string())
          .hint("bring all frames to one size before");
    }
  }
}

// The masks or keypoint maps of the frames; empty where there are none.
FrameFolder::Files FrameFolder::companions(const char* folder, const char* kind, const std::optional<Path>& given,
                                           const Path& beside) const {
  const Path root = given ? *given : beside / folder;
  if (!fs::is_directory(root)) {
    if (!given) return {};
    throw no_folder(folder, root);
  }
  Files result;
  for (size_t v = 0; v < frames_.size(); ++v) {
    const std::string& name = camera_names_[v];
    if (!fs::is_directory(root / name)) {
      throw Error(Code::kUsage, std::string("the ") + folder + " folder has no camera " + name)
          .got(path_text(root))
          .allowed("folders " + joined(camera_names_));
    }
    std::map<std::string, Path> found;
    for (const Path& file : images(root / name, std::string("the ") + folder + " folder's camera " + name))
      found[stem(file)] = file;
    std::vector<Path> column;
    for (const Path& frame : frames_[v]) {
      const auto place = found.find(stem(frame));
      if (place == found.end()) {
        throw Error(Code::kUsage, "camera " + name + " has no " + kind + " for frame " + frame.filename().string())
            .got(path_text(root / name))
            .allowed(std::string("a ") + kind + " for every frame: " + stem(frame) + ".png");
      }
      const std::string what = "camera " + name + ", " + kind + " " + place->second.filename().string();
      if (const Size its = size_of(place->second, what); its != size_) {
        throw Error(Code::kUsage, what + " has another size than its frame").got(by(its)).allowed(by(size_));
      }
      column.push_back(place->second);
    }
    result.push_back(std::move(column));
  }
  return result;
}

// The folder's cameras in the order of its views; there may be more in the file.
std::vector<page4d::Camera> FrameFolder::rig(const std::optional<Path>& given, const Path& beside) const {
  const Path path = given ? *given : beside / "cameras.json";
  if (!given && !fs::exists(path)) return {};
  const Cameras known = read_cameras(path);
  std::vector<page4d::Camera> result;
  for (const std::string& name : camera_names_) {
    const auto place =
        std::find_if(known.begin(), known.end(), [&name](const auto& entry) { return entry.first == name; });
    if (place == known.end()) {
      std::vector<std::string> names;
      for (const auto& entry : known) names.push_back(entry.first);
      throw Error(Code::kUsage, path_text(path) + " has no camera " + name)
          .got(names.empty() ? "no cameras" : joined(names))
          .allowed("the cameras of the frames: " + joined(camera_names_));
    }
    if (const Size its{place->second.width, place->second.height}; its != size_) {
      throw Error(Code::kUsage, path_text(path) + " says another size for camera " + name + " than its frames have")
          .got(by(its))
          .allowed(by(size_));
    }
    result.push_back(place->second);
  }
  return result;
}

Pixels FrameFolder::decode(const Files& files, int64_t t, int64_t v, const std::string& kind, Colour colour) const {
  const Path& file = files[static_cast<size_t>(v)][static_cast<size_t>(t)];
  const std::string what =
      "camera " + camera_names_[static_cast<size_t>(v)] + ", " + kind + " " + file.filename().string();
  Pixels pixels;
  try {
    pixels = read_image(file, colour);
  } catch (const ImageError& error) {
    throw unreadable(what, file, error);
  }
  if (const Size its{pixels.width, pixels.height}; its != size_) {
    throw Error(Code::kUsage, what + " is not of the size that the folder was opened with")
        .got(by(its))
        .allowed(by(size_));
  }
  return pixels;
}

}  // namespace offline
