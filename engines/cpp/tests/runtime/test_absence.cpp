// Windows with absent images: their results are NaN, whatever their pixels are, on the host and on a GPU whose driver
// is tests/support/driver. What the engines get is compared with Python's by the parity tests.
#include <cmath>

#include "runtime/output_names.h"
#include "runtime/window_cases.h"
#include "support/allocations.h"

using namespace page4d;
using Json = nlohmann::ordered_json;

namespace {

// Which images of a window are present.
using Present = std::vector<uint8_t>;

// All, all but the first, the last one alone, and some at random; of every clip one or more.
std::vector<Present> patterns(const Layout& layout) {
  const auto images = static_cast<size_t>(layout.images()), frames = static_cast<size_t>(layout.frames());
  std::vector<Present> all = {Present(images, 1), Present(images, 1), Present(images, 0), Present(images, 1)};
  unsigned seed = 3;
  for (int round = 0; round < 4; ++round) {
    all.emplace_back();
    for (size_t i = 0; i < images; ++i) all.back().push_back((seed = seed * 1664525u + 1013904223u) >> 31);
  }
  for (size_t first = 0; first < images; first += frames) {
    if (frames > 1) all[1][first] = 0;
    for (Present& present : all) present[first + frames - 1] = 1;
  }
  return all;
}

bool is_of_images(const std::string& name) {
  return name != "memory" && name != "metric" && name.rfind("layers.", 0) != 0;
}

// Whether every number of an absent image is NaN, and some number of every present one is not.
bool leaves_out(const Results& results, const Tensor& tensor, const Present& present) {
  const size_t size = bytes_of(tensor.dtype), count = tensor.bytes / size / present.size();
  const void* data = results.data(tensor.name);
  for (size_t i = 0; i < present.size(); ++i) {
    size_t nan = 0;
    for (size_t k = i * count; k < (i + 1) * count; ++k)
      nan += std::isnan(size == 8 ? static_cast<const double*>(data)[k] : double{static_cast<const float*>(data)[k]});
    if (present[i] == 0 ? nan < count : nan == count) return false;
  }
  return true;
}

// Pixels that a run may not read.
void hide_absent(std::vector<Image>& images, const Present& present) {
  for (size_t i = 0; i < images.size(); ++i) {
    if (present[i] == 0) images[i] = {};
  }
}

void test_gpu_equals_host(const Json& plan, bool use_graph) {
  const Manifest manifest = parse_manifest(plan.dump(), "");
  Options options = options_for(manifest);
  options.use_graph = use_graph;
  const auto host_loader = checksum_loader();
  WindowRunner host(manifest, *host_loader, constants_of(manifest), options);
  CudaDevice device(0);
  Loader loader(device);
  device.enter();
  WindowRunner gpu(manifest, loader, constants_of(manifest), options);
  device.leave();
  CHECK(gpu.has_graph() == use_graph);
  const EngineInfo& info = gpu.info();
  CHECK(info.input("present") != nullptr && info.input("present")->bytes == static_cast<size_t>(info.layout.images()));
  void* stream = Caller::stream();
  std::map<Present, std::string> windows;
  for (const Present& present : patterns(manifest.layout)) {
    WindowInputs inputs(manifest, 5);
    for (auto* images : {&inputs.images, &inputs.masks, &inputs.keypoints}) hide_absent(*images, present);
    Frames frames = inputs.frames();
    frames.present = present.data();
    Results expected(info), actual(info);
    const long allocations = Caller::count("driver_allocations");
    CHECK(allocations_of([&] { CHECK_TEXT(host.run(frames, expected.outputs(), nullptr).message, ""); }) == 0);
    CHECK_TEXT(gpu.run(frames, actual.outputs(), stream).message, "");
    Caller::synchronize(stream);
    CHECK(Caller::count("driver_allocations") == allocations);
    const std::string now = contents(actual, info);
    CHECK(now == contents(expected, info));
    for (const auto& [other, window] : windows) CHECK((window == now) == (other == present));
    windows[present] = now;
    for (const Tensor& tensor : info.outputs) CHECK(!is_of_images(tensor.name) || leaves_out(actual, tensor, present));
    if (present == Present(present.size(), 1)) {
      frames.present = nullptr;
      CHECK(gpu.run(frames, actual.outputs(), nullptr).ok());
      CHECK(contents(actual, info) == now);
    }
  }
}

// Images and a result in the device's memory.
void test_device_memory() {
  const Manifest manifest = parse_manifest(vectors("absence/plans.json")["plans"][2]["manifest"].dump(), "");
  CudaDevice device(0);
  Loader loader(device);
  device.enter();
  WindowRunner gpu(manifest, loader, constants_of(manifest), {});
  device.leave();
  const WindowInputs inputs(manifest, 7);
  const Present present = {0, 1, 0};
  Frames frames = inputs.frames();
  frames.present = present.data();
  Results expected(gpu.info()), actual(gpu.info());
  CHECK(gpu.run(frames, expected.outputs(), nullptr).ok());
  std::vector<Image> images = inputs.images;
  hide_absent(images, present);
  const size_t size = images[1].row_bytes() * static_cast<size_t>(images[1].height);
  const Caller::Memory pixels = Caller::memory(size);
  std::memcpy(pixels.get(), images[1].data, size);
  images[1].data = pixels.get(), images[1].memory = Memory::kDevice;
  frames.images = images.data();
  Outputs outputs = actual.outputs();
  const Tensor& depth = *gpu.info().output("depth");
  const Caller::Memory result = Caller::memory(depth.bytes);
  outputs.depth = {result.get(), depth.bytes, Memory::kDevice};
  CHECK_TEXT(gpu.run(frames, outputs, nullptr).message, "");
  CHECK(std::memcmp(result.get(), expected.depth(), depth.bytes) == 0);
  CHECK(leaves_out(expected, depth, present));
  CHECK(std::memcmp(actual.points(), expected.points(), gpu.info().output("points")->bytes) == 0);
}

// The window of a film that begins at `start`; images are absent by their place in the film.
struct FilmWindow {
  FilmWindow(const Manifest& manifest, int64_t start) : inputs(WindowInputs::of_film(manifest, start)) {
    for (int64_t i = 0; i < manifest.layout.images(); ++i) present.push_back((start * manifest.layout.V + i) % 3 != 0);
  }
  Frames frames(int64_t shared) const {
    Frames frames = inputs.frames();
    frames.present = present.data(), frames.shared = shared;
    return frames;
  }

  WindowInputs inputs;
  Present present;
};

// Overlapping windows equal the same windows computed whole: images that are absent from both, and present images whose
// place among the present ones changes.
void test_sliding(const Json& plan) {
  const Manifest manifest = parse_manifest(plan.dump(), "");
  Options options = options_for(manifest);
  const auto host_loader = checksum_loader();
  WindowRunner whole(manifest, *host_loader, constants_of(manifest), options);
  options.sliding = true;
  WindowRunner host(manifest, *host_loader, constants_of(manifest), options);
  CudaDevice device(0);
  Loader loader(device);
  device.enter();
  WindowRunner gpu(manifest, loader, constants_of(manifest), options);
  device.leave();
  const EngineInfo& info = whole.info();
  Results expected(info), actual(info), actual_on_gpu(info);
  const int64_t T = manifest.layout.T;
  int64_t start = 0;
  for (const int64_t stride : {int64_t{0}, int64_t{1}, int64_t{1}, T - 1, T, int64_t{1}}) {
    start += stride;
    const FilmWindow window(manifest, start);
    const Frames frames = window.frames(start == 0 ? 0 : T - stride);
    CHECK_TEXT(whole.run(window.frames(0), expected.outputs(), nullptr).message, "");
    CHECK_TEXT(host.run(frames, actual.outputs(), nullptr).message, "");
    CHECK_TEXT(gpu.run(frames, actual_on_gpu.outputs(), nullptr).message, "");
    CHECK(contents(actual, info) == contents(expected, info));
    CHECK(contents(actual_on_gpu, info) == contents(expected, info));
  }
  // an image that was absent from the window before has no tokens; one that is absent only in this one is left out
  FilmWindow window(manifest, start);
  window.present.assign(window.present.size(), 1);
  window.present[static_cast<size_t>(manifest.layout.V)] = 0;
  CHECK(host.run(window.frames(0), actual.outputs(), nullptr).ok());
  const FilmWindow next(manifest, start + 1);
  Frames frames = next.frames(T - 1);
  frames.present = nullptr;
  CHECK_TEXT(host.run(frames, actual.outputs(), nullptr).message,
             "a shared time has an image that was absent from the window before\n  got:     timestep 0, view 0\n  "
             "allowed: an image that is absent again\n  try:     fewer shared times");
  Present present(window.present.size(), 1);
  present[0] = present[1] = 0;
  frames.present = present.data();
  CHECK(host.run(frames, actual.outputs(), nullptr).ok());
  CHECK(leaves_out(actual, *info.output("mask"), present));
}

void test_refusals() {
  const Manifest manifest = parse_manifest(vectors("absence/plans.json")["plans"][1]["manifest"].dump(), "");
  const auto loader = checksum_loader();
  WindowRunner runner(manifest, *loader, constants_of(manifest), options_for(manifest));
  const WindowInputs inputs(manifest, 1);
  Results results(runner.info());
  Present present(static_cast<size_t>(manifest.layout.images()), 1);
  const auto frames = static_cast<std::ptrdiff_t>(manifest.layout.frames());
  std::fill(present.begin() + frames, present.end(), uint8_t{0});
  Frames window = inputs.frames();
  window.present = present.data();
  CHECK_TEXT(runner.run(window, results.outputs(), nullptr).message,
             "every image of a clip is absent\n  allowed: 1 or more that are there");
  std::vector<Image> images = inputs.images;
  images[0] = {};
  window.images = images.data();
  present.assign(present.size(), 1);
  CHECK_TEXT(runner.run(window, results.outputs(), nullptr).message, "the image of timestep 0, view 0 is not there");
  present[0] = 0;
  CHECK(runner.run(window, results.outputs(), nullptr).ok());

  const Manifest without = parse_manifest(plan_named("memory float32 B=1").dump(), "");
  WindowRunner needs_all(without, *loader, constants_of(without), options_for(without));
  const WindowInputs six(without, 1);
  Frames all = six.frames();
  present = {1, 1, 0, 1, 0, 1};
  all.present = present.data();
  Results more(needs_all.info());
  const Status status = needs_all.run(all, more.outputs(), nullptr);
  CHECK(status.code == Code::kUsage);
  CHECK_TEXT(status.message,
             "the image of timestep 1, view 0 is absent, and these engines need every image\n  try:     "
             "page4d-export --absent-views");
  present.assign(6, 1);
  CHECK(needs_all.run(all, more.outputs(), nullptr).ok());
}

// The cameras are the known ones where there is an image.
void test_known_cameras() {
  const Manifest manifest = parse_manifest(vectors("absence/plans.json")["published"][3]["manifest"].dump(), "");
  const auto loader = checksum_loader();
  WindowRunner runner(manifest, *loader, constants_of(manifest), options_for(manifest));
  const WindowInputs inputs(manifest, 4);
  Results whole(runner.info()), holed(runner.info());
  Frames frames = inputs.frames();
  CHECK(runner.run(frames, whole.outputs(), nullptr).ok());
  const Present present = {1, 0, 1, 1};
  frames.present = present.data();
  CHECK(runner.run(frames, holed.outputs(), nullptr).ok());
  for (const size_t view : {0u, 2u, 3u}) {
    CHECK(std::equal(whole.camera() + 16 * view, whole.camera() + 16 * (view + 1), holed.camera() + 16 * view));
    CHECK(holed.intrinsics()[9 * view] == 60 && std::isfinite(holed.depth()[view * 56 * 70]));
  }
}

}  // namespace

int main() {
  const Json all = vectors("absence/plans.json");
  for (const char* kind : {"plans", "published"}) {
    for (const auto& plan : all[kind]) {
      for (const bool use_graph : {true, false}) test_gpu_equals_host(plan["manifest"], use_graph);
    }
  }
  test_device_memory();
  for (const auto& plan : all["slides"]) test_sliding(plan["manifest"]);
  test_refusals();
  test_known_cameras();
}
