// Windows of a clip of raw images through the public interface, every output as raw bytes, which the Python tests
// compare with their own runtime's. `parity ENGINES CLIP OUT`.
//
// CLIP/clip.json: {"backend": "test", "tensorrt" or "onnxruntime", "library": ONNX Runtime's,
//   "width", "height", "fit": "none" or a mode of --fit, "cameras":
//   entries of cameras.json, a list by view, "sliding": true or false, "starts": the windows' first
//   timesteps}
// CLIP/images, u8 [n,V,H,W,3]; CLIP/masks and CLIP/keypoints, u8 [n,V,H,W], CLIP/present, u8 [n,V], if any: all n
// timesteps of the clip
// OUT/<window>/<output>: the bytes; windows count from 0, OUT exists. If the engines give points, or depth and
// cameras, `world_points` is there, too, f32 [T,V,H,W,3]
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "clip/camera_vectors.h"
#include "files/files.h"
#include "page4d/geometry.h"
#include "page4d/pipeline.h"

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

class Clip {
 public:
  explicit Clip(const fs::path& folder) : info(ordered_json::parse(page4d::read_file(folder / "clip.json").value())) {
    for (const char* name : {"images", "masks", "keypoints", "present"})
      if (std::optional<std::string> bytes = page4d::read_file(folder / name)) bytes_[name] = std::move(*bytes);
  }

  page4d::Options options() const {
    static const std::map<std::string, page4d::Fit> fits = {
        {"none", page4d::Fit::kNone},           {"stretch", page4d::Fit::kStretch},
        {"crop", page4d::Fit::kCrop},           {"pad", page4d::Fit::kPad},
        {"published", page4d::Fit::kPublished}, {"published-pad", page4d::Fit::kPublishedPad}};
    static const std::map<std::string, page4d::Backend> backends = {{"test", page4d::Backend::kTest},
                                                                    {"tensorrt", page4d::Backend::kTensorrt},
                                                                    {"onnxruntime", page4d::Backend::kOnnxruntime}};
    page4d::Options options;
    options.backend = backends.at(info.at("backend"));
    options.onnxruntime_library = info.value("library", std::string()), options.threads = 1;
    options.frame_width = info.at("width"), options.frame_height = info.at("height");
    options.fit = fits.at(info.at("fit"));
    options.sliding = info.at("sliding");
    for (const ordered_json& camera : info.at("cameras")) options.cameras.push_back(camera_of(camera));
    return options;
  }

  // The images of a window; empty if the clip has none of this kind.
  std::vector<page4d::Image> window(const char* name, int64_t start, const page4d::Layout& layout) const {
    std::vector<page4d::Image> images;
    const auto bytes = bytes_.find(name);
    if (bytes == bytes_.end()) return images;
    page4d::Image image;
    image.width = info.at("width"), image.height = info.at("height");
    image.format = bytes->first == "images" ? page4d::PixelFormat::kRgb8 : page4d::PixelFormat::kMono8;
    const size_t size = image.row_bytes() * static_cast<size_t>(image.height);
    for (int64_t i = start * layout.V; i < (start + layout.T) * layout.V; ++i) {
      CHECK((static_cast<size_t>(i) + 1) * size <= bytes->second.size());
      image.data = bytes->second.data() + static_cast<size_t>(i) * size;
      images.push_back(image);
    }
    return images;
  }

  // Null if every image is present.
  const uint8_t* present(int64_t start, const page4d::Layout& layout) const {
    const auto bytes = bytes_.find("present");
    if (bytes == bytes_.end()) return nullptr;
    CHECK(static_cast<size_t>((start + layout.T) * layout.V) <= bytes->second.size());
    return reinterpret_cast<const uint8_t*>(bytes->second.data()) + start * layout.V;
  }

  const ordered_json info;

 private:
  std::map<std::string, std::string> bytes_;
};

void run(const std::string& engines, const Clip& clip, const fs::path& out) {
  page4d::Pipeline pipeline = page4d::Pipeline::load(engines, clip.options());
  const page4d::Layout& layout = pipeline.info().layout;
  page4d::Results results(pipeline.info());
  int64_t before = -1;
  for (size_t number = 0; number < clip.info.at("starts").size(); ++number) {
    const int64_t start = clip.info.at("starts").at(number);
    const std::vector<page4d::Image> images = clip.window("images", start, layout);
    const std::vector<page4d::Image> masks = clip.window("masks", start, layout);
    const std::vector<page4d::Image> keypoints = clip.window("keypoints", start, layout);
    page4d::Frames frames;
    frames.images = images.data();
    frames.masks = masks.empty() ? nullptr : masks.data();
    frames.keypoints = keypoints.empty() ? nullptr : keypoints.data();
    frames.present = clip.present(start, layout);
    if (number > 0) frames.memory = results.data("memory");
    if (number > 0 && pipeline.slides()) frames.shared = std::max<int64_t>(before + layout.T - start, 0);
    if (const page4d::Status status = pipeline.run(frames, results.outputs()); !status)
      throw page4d::Error(status.code, status.message);
    fs::create_directory(out / std::to_string(number));
    for (const page4d::Tensor& tensor : pipeline.info().outputs)
      std::ofstream(out / std::to_string(number) / tensor.name, std::ios::binary)
          .write(static_cast<const char*>(results.data(tensor.name)), static_cast<std::streamsize>(tensor.bytes));
    if (results.points() != nullptr || (results.depth() != nullptr && results.camera() != nullptr)) {
      std::vector<float> world(static_cast<size_t>(layout.images() * layout.H * layout.W) * 3);
      page4d::world_points(pipeline.info(), results.outputs(), world.data());
      std::ofstream(out / std::to_string(number) / "world_points", std::ios::binary)
          .write(reinterpret_cast<const char*>(world.data()),
                 static_cast<std::streamsize>(world.size() * sizeof(float)));
    }
    before = start;
  }
}

}  // namespace

int main(int argc, char** argv) try {
  CHECK(argc == 4);
  run(argv[1], Clip(argv[2]), argv[3]);
} catch (const page4d::Error& error) {
  std::fprintf(stderr, "page4d: %s\n", error.what());
  return static_cast<int>(error.code());
}
