// Runs engines on frames of several cameras and writes a mask for each frame. A program to copy: it has every call that
// a program with images in files needs.
#include <page4d/pipeline.h>
#include <png.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using page4d::Code;
using page4d::Error;

namespace {

constexpr char kUsage[] = R"(usage: frames ENGINES FRAMES OUT [--test]
  ENGINES  an engine folder, written by page4d-export
  FRAMES   <camera>/<frame>.png, itself or in its folder frames: a folder for each view of the engines, images of one
           size, equally many in each
  OUT      a new folder for <camera>/<frame>.png, the mask: white where something moves, one pixel for each 14x14 patch
  --test   checksums in place of the networks: for machines without a GPU
)";

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

void write_mask(const fs::path& file, const float* mask, const page4d::Layout& layout) {
  std::vector<unsigned char> grey(size_t(layout.P()));
  std::transform(mask, mask + grey.size(), grey.begin(),
                 [](float p) { return static_cast<unsigned char>(255 * std::clamp(p, 0.F, 1.F) + 0.5F); });
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = png_uint_32(layout.w()), png.height = png_uint_32(layout.h()), png.format = PNG_FORMAT_GRAY;
  fs::create_directories(file.parent_path());
  if (png_image_write_to_file(&png, file.c_str(), 0, grey.data(), 0, nullptr) == 0)
    throw Error(Code::kFailure, png.message).got(file.string());
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
  std::vector<std::vector<fs::path>> files;  // by camera
  for (const fs::path& camera : listed(fs::is_directory(folder / "frames") ? folder / "frames" : folder, true))
    files.push_back(listed(camera, false));
  for (const auto& frames : files)
    if (frames.size() != files[0].size())
      throw Error(Code::kUsage, "cameras have different numbers of frames").got(frames[0].parent_path().string());
  const Picture first = read_png(files[0][0]);

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
  for (size_t next = 0; next < count; next += T) {
    const size_t start = std::min(next, count - T);  // the last window ends with the last frames
    std::vector<Picture> pictures;
    for (size_t i = 0; i < T * V; ++i) pictures.push_back(read_png(files[i % V][start + i / V]));
    std::vector<page4d::Image> images;
    for (const Picture& picture : pictures) images.push_back({picture.pixels.data(), picture.width, picture.height});
    page4d::Frames frames;
    frames.images = images.data();
    if (next > 0) frames.memory = results.data("memory");  // of the window before; null where the engines have none
    if (const page4d::Status status = pipeline.run(frames, results.outputs()); !status)
      throw Error(status.code, status.message);
    for (size_t i = 0; results.mask() != nullptr && i < T * V; ++i) {
      const fs::path& file = files[i % V][start + i / V];
      write_mask(out.path() / file.parent_path().filename() / file.filename(), results.mask() + i * size_t(layout.P()),
                 layout);
    }
  }
  for (const page4d::Tensor& tensor : info.outputs)
    if (tensor.name != "mask")
      std::printf("not written: %s, %s, %zu bytes a window\n", tensor.name.c_str(), name_of(tensor.dtype),
                  tensor.bytes);
  if (results.mask() != nullptr) out.keep();
}

}  // namespace

int main(int argc, char** argv) try {
  const bool test = argc == 5 && std::strcmp(argv[4], "--test") == 0;
  if (argc != 4 && !test) return std::fputs(kUsage, stderr), int(Code::kUsage);
  run(argv[1], argv[2], argv[3], test ? page4d::Backend::kTest : page4d::Backend::kTensorrt);
} catch (const Error& error) {
  return std::fprintf(stderr, "frames: %s\n", error.what()), int(error.code());
} catch (const std::exception& error) {
  return std::fprintf(stderr, "frames: %s\n", error.what()), int(Code::kFailure);
}
