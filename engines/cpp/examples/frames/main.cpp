// Runs engines on frames of several cameras; writes masks, depth and points as far as they give them. A program to
// copy: it has every call that a program with images in files needs.
#include <page4d/fit.h>
#include <page4d/geometry.h>
#include <page4d/pipeline.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

namespace fs = std::filesystem;
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

// An RGB image of 8 bits, without gaps between its rows.
struct Picture {
  std::vector<unsigned char> pixels;
  int width = 0, height = 0;
};

Picture read_png(const fs::path& file) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto refuse = [&] { throw Error(Code::kUsage, "not a readable PNG").got(file.string() + ": " + png.message); };
  if (png_image_begin_read_from_file(&png, file.c_str()) == 0) refuse();
  png.format = PNG_FORMAT_RGB;
  Picture picture{std::vector<unsigned char>(PNG_IMAGE_SIZE(png)), int(png.width), int(png.height)};
  if (png_image_finish_read(&png, nullptr, picture.pixels.data(), 0, nullptr) == 0) refuse();
  return picture;
}

// Values [height,width] as a grey image of 8 or 16 bits: white for `white` and more, black for 0 and for what is not
// finite. Makes the folder, too.
template <class Pixel>
void write_png(const fs::path& file, const float* values, float white, int64_t width, int64_t height) {
  std::vector<Pixel> pixels(size_t(width * height));
  std::transform(values, values + pixels.size(), pixels.begin(), [&](float value) {
    const double share = std::isfinite(value) && value > 0 ? std::min(double(value) / double(white), 1.0) : 0;
    return static_cast<Pixel>(std::numeric_limits<Pixel>::max() * share + 0.5);
  });
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = png_uint_32(width), png.height = png_uint_32(height);
  png.format = sizeof(Pixel) == 2 ? PNG_FORMAT_LINEAR_Y : PNG_FORMAT_GRAY;
  fs::create_directories(file.parent_path());
  if (png_image_write_to_file(&png, file.c_str(), 0, pixels.data(), 0, nullptr) == 0)
    throw Error(Code::kFailure, png.message).got(file.string());
}

// points: [n,3]; colours: [n,3], RGB. Binary PLY: x, y, z as float, red, green, blue as byte; points that are not
// finite are left out.
void write_points(const fs::path& file, const std::vector<float>& points, const std::vector<unsigned char>& colours) {
  std::string vertices;
  size_t count = 0;
  for (size_t i = 0; i + 2 < points.size(); i += 3) {
    if (!std::isfinite(points[i] + points[i + 1] + points[i + 2])) continue;
    vertices.append(reinterpret_cast<const char*>(&points[i]), 3 * sizeof(float));
    vertices.append(reinterpret_cast<const char*>(&colours[i]), 3);
    ++count;
  }
  std::ofstream out(file, std::ios::binary);
  out << "ply\nformat binary_little_endian 1.0\nelement vertex " << count
      << "\nproperty float x\nproperty float y\nproperty float z"
      << "\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
      << vertices << std::flush;
  if (!out) throw Error(Code::kFailure, "not written").got(file.string());
}

// The folders in a folder, or its PNG files, by name.
std::vector<fs::path> listed(const fs::path& folder, bool folders) {
  if (!fs::is_directory(folder)) throw Error(Code::kUsage, "there is no such folder").got(folder.string());
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (folders ? entry.is_directory() : entry.path().extension() == ".png") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The files of FRAMES by camera; of photos, each is a camera's.
std::vector<std::vector<fs::path>> files_of(const fs::path& folder) {
  std::vector<std::vector<fs::path>> files;
  for (const fs::path& photo : listed(folder, false)) files.push_back({photo});
  if (!files.empty()) return files;
  for (const fs::path& camera : listed(folder, true)) files.push_back(listed(camera, false));
  if (files.empty()) throw Error(Code::kUsage, "no camera's folder").got(folder.string());
  for (const auto& frames : files)
    if (frames.empty() || frames.size() != files[0].size())
      throw Error(Code::kUsage, "cameras have different numbers of frames, or none").got(folder.string());
  return files;
}

void run(const fs::path& engines, const fs::path& folder, const fs::path& out, page4d::Backend backend) {
  const fs::path root = fs::is_directory(folder / "frames") ? folder / "frames" : folder;
  const std::vector<std::vector<fs::path>> files = files_of(root);
  const Picture first = read_png(files[0][0]);

  page4d::Options options;
  options.backend = backend;
  options.frame_width = first.width, options.frame_height = first.height;
  options.fit = page4d::Fit::kCrop;  // where the aspect ratio is not the engines'
  page4d::Pipeline pipeline = page4d::Pipeline::load(engines.string(), options);
  const page4d::EngineInfo& info = pipeline.info();
  const page4d::Layout& layout = info.layout;
  const auto T = size_t(layout.T), V = size_t(layout.V), count = files[0].size();
  const auto clip = [](size_t cameras, size_t frames) {
    return std::to_string(cameras) + " cameras of " + std::to_string(frames) + " frames";
  };
  if (files.size() != V || layout.B != 1 || count < T)
    throw Error(Code::kUsage, "the engines are for another clip")
        .got(clip(files.size(), count))
        .allowed(clip(V, T) + " or more");

  page4d::Results results(info);
  page4d::ImageFit fit(first.width, first.height, layout, options.fit);
  const auto pixels = size_t(layout.H * layout.W);
  const bool has_points =
      results.points() != nullptr || (results.depth() != nullptr && results.intrinsics() != nullptr);
  if (results.mask() == nullptr && results.depth() == nullptr && !has_points)
    throw Error(Code::kUsage, "these engines give no mask, depth or points").hint("page4d-run, for their tokens");
  for (size_t next = 0; next < count; next += T) {
    const size_t start = std::min(next, count - T);  // the last window ends with the last frames
    std::vector<Picture> pictures;
    for (size_t i = 0; i < T * V; ++i) pictures.push_back(read_png(files[i % V][start + i / V]));
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
      if (const float* mask = results.mask(); mask != nullptr)
        write_png<uint8_t>(out / "masks" / name, mask + i * size_t(layout.P()), 1, layout.w(), layout.h());
      if (depth != nullptr) write_png<uint16_t>(out / "depth" / name, depth + i * pixels, largest, layout.W, layout.H);
    }
    if (has_points) {
      std::vector<float> points(3 * T * V * pixels);
      std::vector<unsigned char> colours(points.size());
      page4d::world_points(info, results.outputs(), points.data());
      for (size_t i = 0; i < T * V; ++i) fit.image(window[i], &colours[3 * i * pixels]);
      write_points(out / ("points_" + std::to_string(start) + ".ply"), points, colours);
    }
  }
  std::printf("%s\n", pipeline.described().c_str());
  for (const std::string& warning : pipeline.warnings()) std::printf("note: %s\n", warning.c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  const bool test = argc == 5 && std::strcmp(argv[4], "--test") == 0;
  if (argc != 4 && !test) return std::fputs(kUsage, stderr), int(Code::kUsage);
  // a folder that gets its name when everything is written: a run that fails leaves nothing
  const fs::path out = (fs::path(argv[3]) / "").parent_path(), partial = out.string() + ".partial";
  for (const fs::path& path : {out, partial})
    if (fs::exists(path)) throw Error(Code::kUsage, "OUT exists").got(path.string()).allowed("a new folder");
  fs::create_directory(partial);
  try {
    run(argv[1], argv[2], partial, test ? page4d::Backend::kTest : page4d::Backend::kAuto);
    fs::rename(partial, out);
  } catch (...) {
    fs::remove_all(partial);
    throw;
  }
} catch (const Error& error) {
  return std::fprintf(stderr, "frames: %s\n", error.what()), int(error.code());
} catch (const std::exception& error) {
  return std::fprintf(stderr, "frames: %s\n", error.what()), int(Code::kFailure);
}
