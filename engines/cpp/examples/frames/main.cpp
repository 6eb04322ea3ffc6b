// Runs engines on frames of several cameras; writes masks, depth and points as far as they give them. A program to
// copy: it has every call that a program with images in files needs.
#include <page4d/fit.h>
#include <page4d/geometry.h>
#include <page4d/pipeline.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "images.h"

namespace fs = std::filesystem;
using images::Picture;
using page4d::Code;
using page4d::Error;

namespace {

constexpr char kUsage[] = R"(usage: frames ENGINES FRAMES OUT [--test]
  ENGINES  an engine folder, written by page4d-export
  FRAMES   <camera>/<frame>.png, itself or in its folder frames: a folder for each view of the engines, images of one
           size, equally many in each; for engines of one timestep also a folder of photos, one for each view
  OUT      a new folder; of what the engines give it gets, for each frame,
           masks/<camera>/<frame>.png: white where something moves, one pixel for each 14x14 patch,
           depth/<camera>/<frame>.png: 16 bits, 65535 for the largest depth of the window, 0 for none,
           and for each window points_<number>.ply: coloured points in the world
  --test   checksums in place of the networks
)";

void write_mask(const fs::path& file, const float* mask, const page4d::Layout& layout) {
  std::vector<unsigned char> grey(size_t(layout.P()));
  std::transform(mask, mask + grey.size(), grey.begin(),
                 [](float p) { return static_cast<unsigned char>(p > 0 ? 255 * std::min(p, 1.F) + 0.5F : 0.F); });
  images::write_png(file, grey, layout.w(), layout.h());
}

void write_depth(const fs::path& file, const float* depth, float largest, const page4d::Layout& layout) {
  std::vector<uint16_t> grey(size_t(layout.H * layout.W));
  std::transform(depth, depth + grey.size(), grey.begin(), [&](float z) {
    return z > 0 && std::isfinite(z) ? static_cast<uint16_t>(65535 * (z / largest)) : uint16_t(0);
  });
  images::write_png(file, grey, layout.W, layout.H);
}

// The folders in a folder, or its PNG files, by name.
std::vector<fs::path> listed(const fs::path& folder, bool folders) {
  if (!fs::is_directory(folder)) throw Error(Code::kUsage, "there is no such folder").got(folder.string());
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (folders ? entry.is_directory() : entry.path().extension() == ".png") paths.push_back(entry.path());
  if (paths.empty()) throw Error(Code::kUsage, folders ? "no camera's folder" : "no PNG files").got(folder.string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Whether a folder holds images itself.
bool has_photos(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  const fs::directory_iterator entries(folder);
  return std::any_of(begin(entries), end(entries),
                     [](const auto& entry) { return entry.path().extension() == ".png"; });
}

// A folder that gets its name when everything is written: a run that fails leaves nothing.
class NewFolder {
 public:
  explicit NewFolder(const fs::path& target)
      : target_((target / "").parent_path()), path_(target_.string() + ".partial") {
    for (const fs::path& path : {target_, path_})
      if (fs::exists(path)) throw Error(Code::kUsage, "OUT exists").got(path.string()).allowed("a new folder");
    fs::create_directory(path_);
  }
  ~NewFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void keep() {
    fs::rename(path_, target_);
    path_.clear();
  }

 private:
  fs::path target_, path_;
};

void run(const fs::path& engines, const fs::path& folder, const fs::path& out_folder, page4d::Backend backend) {
  NewFolder out(out_folder);
  const fs::path root = fs::is_directory(folder / "frames") ? folder / "frames" : folder;
  std::vector<std::vector<fs::path>> files;  // by camera
  if (has_photos(root)) {
    for (const fs::path& photo : listed(root, false)) files.push_back({photo});
  } else {
    for (const fs::path& camera : listed(root, true)) files.push_back(listed(camera, false));
  }
  for (const auto& frames : files)
    if (frames.size() != files[0].size())
      throw Error(Code::kUsage, "cameras have different numbers of frames").got(frames[0].parent_path().string());
  const Picture first = images::read_png(files[0][0]);

  page4d::Options options;
  options.backend = backend;
  options.frame_width = first.width, options.frame_height = first.height;
  options.fit = page4d::Fit::kCrop;  // where the aspect ratio is not the engines'
  page4d::Pipeline pipeline = page4d::Pipeline::load(engines.string(), options);
  const page4d::EngineInfo& info = pipeline.info();
  const page4d::Layout& layout = info.layout;
  const auto T = size_t(layout.T), V = size_t(layout.V), count = files[0].size();
  if (files.size() != V || layout.B != 1)
    throw Error(Code::kUsage, "the engines are for other cameras")
        .got(std::to_string(files.size()) + " cameras")
        .allowed(std::to_string(layout.B * layout.V));
  if (count < T)
    throw Error(Code::kUsage, "too few frames for a window").got(std::to_string(count)).allowed(std::to_string(T));

  page4d::Results results(info);
  page4d::ImageFit fit(first.width, first.height, layout, options.fit);
  const auto pixels = size_t(layout.H * layout.W);
  const bool has_points =
      results.points() != nullptr || (results.depth() != nullptr && results.intrinsics() != nullptr);
  for (size_t next = 0; next < count; next += T) {
    const size_t start = std::min(next, count - T);  // the last window ends with the last frames
    std::vector<Picture> pictures;
    for (size_t i = 0; i < T * V; ++i) pictures.push_back(images::read_png(files[i % V][start + i / V]));
    std::vector<page4d::Image> window;
    for (const Picture& picture : pictures) window.push_back({picture.pixels.data(), picture.width, picture.height});
    page4d::Frames frames;
    frames.images = window.data();
    if (next > 0) frames.memory = results.data("memory");  // of the window before; null where the engines have none
    if (const page4d::Status status = pipeline.run(frames, results.outputs()); !status)
      throw Error(status.code, status.message);
    const float* depth = results.depth();
    float largest = 0;
    for (size_t i = 0; depth != nullptr && i < T * V * pixels; ++i)
      if (std::isfinite(depth[i])) largest = std::max(largest, depth[i]);
    for (size_t i = 0; i < T * V; ++i) {
      const fs::path name = files[i % V][start + i / V].lexically_relative(root);
      if (results.mask() != nullptr)
        write_mask(out.path() / "masks" / name, results.mask() + i * size_t(layout.P()), layout);
      if (depth != nullptr) write_depth(out.path() / "depth" / name, depth + i * pixels, largest, layout);
    }
    if (has_points) {
      std::vector<float> points(3 * T * V * pixels);
      std::vector<unsigned char> colours(points.size());
      page4d::world_points(info, results.outputs(), points.data());
      for (size_t i = 0; i < T * V; ++i) fit.image(window[i], &colours[3 * i * pixels]);
      images::write_points(out.path() / ("points_" + std::to_string(start) + ".ply"), points, colours);
    }
  }
  if (results.mask() == nullptr && results.depth() == nullptr && !has_points)
    throw Error(Code::kUsage, "these engines give no mask, depth or points").hint("page4d-run, for their tokens");
  out.keep();
  std::printf("%s\n", pipeline.described().c_str());
  for (const std::string& warning : pipeline.warnings()) std::printf("note: %s\n", warning.c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  const bool test = argc == 5 && std::strcmp(argv[4], "--test") == 0;
  if (argc != 4 && !test) return std::fputs(kUsage, stderr), int(Code::kUsage);
  run(argv[1], argv[2], argv[3], test ? page4d::Backend::kTest : page4d::Backend::kAuto);
} catch (const Error& error) {
  return std::fprintf(stderr, "frames: %s\n", error.what()), int(error.code());
} catch (const std::exception& error) {
  return std::fprintf(stderr, "frames: %s\n", error.what()), int(Code::kFailure);
}
