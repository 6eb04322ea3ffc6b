// Shared by tests of windows: checksums on a device, the driver as a caller's program uses it, inputs and results.
#pragma once

#include <dlfcn.h>

#include "checksum/checksum_engine.h"
#include "cuda/cuda_device.h"
#include "runtime/window.h"
#include "support/check.h"
#include "support/folder.h"

namespace page4d {

// Checksums on any device whose memory the host can read.
class Loader final : public EngineLoader {
 public:
  explicit Loader(Device& device, std::string uncapturable = {})
      : device_(device), uncapturable_(std::move(uncapturable)) {}
  std::string described() const override { return "a test"; }
  Device& device() override { return device_; }
  std::unique_ptr<Engine> load(const Stage& stage) override {
    class Choosy final : public Engine {
     public:
      Choosy(const Stage& stage, Device& device, const std::string& reason) : inner_(stage, device), reason_(reason) {}
      size_t scratch() const override { return 1000; }
      std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                      void* scratch) override {
        CHECK(scratch != nullptr);
        return inner_.bind(inputs, outputs, scratch);
      }
      std::string uncapturable(Stream) override { return reason_; }

     private:
      ChecksumEngine inner_;
      std::string reason_;
    };
    return std::make_unique<Choosy>(stage, device_, uncapturable_);
  }

 private:
  Device& device_;
  std::string uncapturable_;
};

// The driver, as a caller's program uses it.
struct Caller {
  template <class F>
  static F function(const char* name) {
    static void* library = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(library != nullptr);
    return reinterpret_cast<F>(dlsym(library, name));
  }
  static long count(const char* name) { return function<long (*)()>(name)(); }
  static void* stream() {
    void* stream = nullptr;
    CHECK(function<int (*)(void**, unsigned)>("cuStreamCreate")(&stream, 0) == 0);
    return stream;
  }
  static void synchronize(void* stream) { CHECK(function<int (*)(void*)>("cuStreamSynchronize")(stream) == 0); }
  struct Free {
    void operator()(void* memory) const { function<int (*)(void*)>("cuMemFree_v2")(memory); }
  };
  using Memory = std::unique_ptr<void, Free>;
  static Memory memory(size_t size) {
    void* memory = nullptr;
    CHECK(function<int (*)(void**, size_t)>("cuMemAlloc_v2")(&memory, size) == 0);
    return Memory(memory);
  }
  static void limit(size_t size) { function<void (*)(size_t)>("driver_limit")(size); }
  // A GPU that shares the host's memory, `cached` bytes of which are page cache: the driver counts those as used.
  static void integrated(bool yes, size_t cached) { function<void (*)(int, size_t)>("driver_integrated")(yes, cached); }
  // The function refuses one call, after `after` more that succeed.
  static void refuse(const char* call, long after) {
    function<void (*)(const char*, long)>("driver_refuse")(call, after);
  }
};

inline Options options_for(const Manifest& manifest) {
  Options options;
  const bool takes_cameras =
      manifest.reads("fundamental") || manifest.reads("cameras") || manifest.takes_focal_lengths();
  for (int64_t v = 0; takes_cameras && v < manifest.layout.V; ++v) {
    Camera camera;
    camera.width = static_cast<int>(manifest.layout.W), camera.height = static_cast<int>(manifest.layout.H);
    const double K[9] = {60, 0, 35, 0, 60, 28, 0, 0, 1},
                 pose[12] = {1, 0, 0, 0.3 * static_cast<double>(v), 0, 1, 0, 0, 0, 0, 1, 0};
    std::copy(K, K + 9, camera.K);
    std::copy(pose, pose + 12, camera.world_to_camera);
    options.cameras.push_back(camera);
  }
  return options;
}

// Images, masks and heat maps of a window, in the host's memory.
struct WindowInputs {
  std::vector<std::vector<unsigned char>> bytes;
  std::vector<Image> images, masks, keypoints;

  // The images of a film from a timestep on: windows that share timesteps have the same images.
  static WindowInputs of_film(const Manifest& manifest, int64_t start) {
    WindowInputs inputs(manifest, 0);
    const Layout& layout = manifest.layout;
    for (int64_t i = 0; i < layout.images(); ++i) {
      auto seed = static_cast<unsigned>(start * layout.V + i);
      for (unsigned char& byte : inputs.bytes[static_cast<size_t>(i)])
        byte = static_cast<unsigned char>((seed = seed * 1664525u + 1013904223u) >> 24);
    }
    return inputs;
  }

  WindowInputs(const Manifest& manifest, unsigned seed) {
    const Layout& layout = manifest.layout;
    const auto make = [&](PixelFormat format, std::vector<Image>& target) {
      for (int64_t i = 0; i < layout.images(); ++i) {
        bytes.emplace_back(static_cast<size_t>(layout.H * layout.W * bytes_per_pixel(format)));
        for (unsigned char& byte : bytes.back())
          byte = static_cast<unsigned char>((seed = seed * 1664525u + 1013904223u) >> 24);
        target.push_back(
            {bytes.back().data(), static_cast<int>(layout.W), static_cast<int>(layout.H), 0, format, Memory::kHost});
      }
    };
    make(PixelFormat::kRgb8, images);
    if (manifest.reads("mask_ext")) make(PixelFormat::kMono8, masks);
    if (manifest.reads("keypoints")) make(PixelFormat::kMono8, keypoints);
  }

  Frames frames() const {
    return {images.data(), masks.empty() ? nullptr : masks.data(), keypoints.empty() ? nullptr : keypoints.data(),
            nullptr};
  }
};

inline std::string contents(const Results& results, const EngineInfo& info) {
  std::string all;
  for (const Tensor& tensor : info.outputs)
    all.append(static_cast<const char*>(results.data(tensor.name)), tensor.bytes);
  return all;
}

}  // namespace page4d
