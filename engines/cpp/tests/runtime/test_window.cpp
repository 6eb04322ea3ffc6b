// A window on the host and on a GPU whose driver is tests/support/driver: the same results to the bit, as a graph and
// without, and nothing allocated.
#include <cmath>

#include "checksum/checksum_engine.h"
#include "cuda/cuda_device.h"
#include "runtime/output_names.h"
#include "runtime/window.h"
#include "runtime/window_cases.h"
#include "support/allocations.h"
#include "support/check.h"

using namespace page4d;

namespace {

void test_gpu_equals_host(const nlohmann::ordered_json& plan, bool use_graph) {
  const Manifest manifest = parse_manifest(plan.dump(), "");
  const auto constants = constants_of(manifest);
  Options options = options_for(manifest);
  options.use_graph = use_graph;
  const auto host_loader = checksum_loader();
  WindowRunner host(manifest, *host_loader, constants, options);
  const long before_allocations = Caller::count("driver_allocations");
  {
    CudaDevice device(0);
    Loader loader(device);
    device.enter();
    WindowRunner gpu(manifest, loader, constants, options);
    device.leave();
    CHECK(gpu.has_graph() == use_graph && gpu.no_graph().empty());
    const EngineInfo& info = gpu.info();
    Results expected(info), actual(info);
    void* stream = Caller::stream();
    std::string last;
    for (unsigned seed = 0; seed < 3; ++seed) {
      const WindowInputs inputs(manifest, seed);
      Frames frames = inputs.frames();
      const long launches = Caller::count("driver_launches"), allocations = Caller::count("driver_allocations");
      CHECK(allocations_of([&] { CHECK(host.run(frames, expected.outputs(), nullptr).ok()); }) == 0);
      CHECK(gpu.run(frames, actual.outputs(), seed == 1 ? nullptr : stream).ok());
      if (seed != 1) Caller::synchronize(stream);
      CHECK(Caller::count("driver_allocations") == allocations);
      CHECK(Caller::count("driver_launches") == launches + (use_graph ? 1 : 0));
      const std::string now = contents(actual, info);
      CHECK(now == contents(expected, info));
      CHECK(now != last);
      last = now;
      // the next window from this one's memory
      if (info.input("memory") != nullptr) {
        frames.memory = actual.data("memory");
        const std::string kept(static_cast<const char*>(actual.data("memory")), info.output("memory")->bytes);
        Results other(info);
        CHECK(gpu.run(frames, other.outputs(), nullptr).ok());
        CHECK(contents(other, info) != now);
      }
    }
    const StageTime* times = gpu.times();
    for (size_t i = 0; i < manifest.stages.size(); ++i)
      CHECK(times[i].stage == manifest.stages[i].name && times[i].seconds > 0);
  }
  CHECK(Caller::count("driver_contexts") == 0);
  CHECK(Caller::count("driver_allocations") > before_allocations);
}

// Images and a result in the device's memory; the images' rows are padded.
void test_device_memory(const char* plan, const char* name) {
  const Manifest manifest = parse_manifest(plan_named(plan).dump(), "");
  const Layout& layout = manifest.layout;
  CudaDevice device(0);
  Loader loader(device);
  device.enter();
  WindowRunner gpu(manifest, loader, constants_of(manifest), {});
  device.leave();
  const WindowInputs inputs(manifest, 7);
  Results expected(gpu.info());
  CHECK(gpu.run(inputs.frames(), expected.outputs(), nullptr).ok());
  std::vector<Image> images = inputs.images;
  std::vector<Caller::Memory> held;
  const auto row = static_cast<size_t>(layout.W) * 3, pitch = row + 13;
  for (Image& image : images) {
    held.push_back(Caller::memory(pitch * static_cast<size_t>(layout.H)));
    auto* memory = static_cast<unsigned char*>(held.back().get());
    for (size_t y = 0; y < static_cast<size_t>(layout.H); ++y)
      std::memcpy(memory + y * pitch, static_cast<const unsigned char*>(image.data) + y * row, row);
    image.data = memory, image.pitch = pitch, image.memory = Memory::kDevice;
  }
  Frames frames = inputs.frames();
  frames.images = images.data();
  Results actual(gpu.info());
  Outputs outputs = actual.outputs();
  const size_t bytes = gpu.info().output(name)->bytes;
  held.push_back(Caller::memory(bytes));
  Output& output = outputs.*output_called(name);
  output = {held.back().get(), bytes, Memory::kDevice};
  void* stream = Caller::stream();
  CHECK(gpu.run(frames, outputs, stream).ok());
  Caller::synchronize(stream);
  CHECK(std::memcmp(output.data, expected.data(name), bytes) == 0);
  for (const char* matrix : {"camera", "intrinsics"}) {
    const Tensor* tensor = gpu.info().output(matrix);
    if (tensor == nullptr) continue;
    CHECK(std::memcmp(actual.data(matrix), expected.data(matrix), tensor->bytes) == 0);
    (outputs.*output_called(matrix)).memory = Memory::kDevice;
    CHECK_TEXT(
        gpu.run(frames, outputs, stream).message,
        std::string(matrix) + " cannot be written to this memory\n  got:     device memory\n  allowed: host memory");
    (outputs.*output_called(matrix)).memory = Memory::kHost;
  }
  images[1].memory = Memory::kHost;
  CHECK_TEXT(gpu.run(frames, outputs, stream).message,
             "images are partly on the device, partly on the host\n  allowed: one of both");
}

// Poses or intrinsics alone are what they are together.
void test_cameras_alone() {
  const Manifest manifest = parse_manifest(plan_named("vggt").dump(), "");
  const auto loader = checksum_loader();
  WindowRunner runner(manifest, *loader, constants_of(manifest), {});
  const WindowInputs inputs(manifest, 5);
  Results together(runner.info()), alone(runner.info());
  CHECK(runner.run(inputs.frames(), together.outputs(), nullptr).ok());
  for (const NamedOutput& output : {NamedOutput{"camera", &Outputs::camera}, {"intrinsics", &Outputs::intrinsics}}) {
    Outputs only;
    only.*output.member = alone.outputs().*output.member;
    CHECK(runner.run(inputs.frames(), only, nullptr).ok());
    CHECK(std::memcmp(alone.data(output.name), together.data(output.name), runner.info().output(output.name)->bytes) ==
          0);
  }
  const double* K = alone.intrinsics();
  CHECK(K[0] > 0 && K[2] == 35 && K[4] > 0 && K[5] == 28 && K[8] == 1);
}

// A window's results on the host.
struct HostRun {
  HostRun(const nlohmann::ordered_json& plan, bool with_cameras, unsigned seed = 11)
      : manifest(parse_manifest(plan.dump(), "")),
        loader(checksum_loader()),
        runner(manifest, *loader, constants_of(manifest), with_cameras ? options_for(manifest) : Options{}),
        results(runner.info()) {
    CHECK(runner.run(WindowInputs(manifest, seed).frames(), results.outputs(), nullptr).ok());
  }

  const Manifest manifest;
  std::unique_ptr<EngineLoader> loader;
  WindowRunner runner;
  Results results;
};

// By the checksums of some images another view than the first is chosen, which changes all results.
void test_reference_view() {
  nlohmann::ordered_json plan = plan_named("da3");
  plan["stages"][0]["outputs"].erase(1);
  int others = 0;
  const unsigned seeds = 12;
  for (unsigned seed = 0; seed < seeds; ++seed) {
    const HostRun chosen(plan_named("da3"), false, seed), first(plan, false, seed);
    const size_t bytes = chosen.runner.info().output("layers.0")->bytes;
    others += std::memcmp(chosen.results.data("layers.0"), first.results.data("layers.0"), bytes) != 0 ? 1 : 0;
  }
  CHECK(others > 3 && others < static_cast<int>(seeds));
}

// Points and positions are the engines' own times `metric`.
void test_metres() {
  nlohmann::ordered_json plan = plan_named("pi3x of two clips");
  const HostRun in_metres(plan, false);
  CHECK(in_metres.runner.info().unit == Unit::kMetres);
  plan.erase("unit"), plan["stages"].erase(plan["stages"].size() - 1);
  const HostRun without(plan, false);
  CHECK(!without.runner.info().unit && without.results.metric() == nullptr);
  const float* metric = in_metres.results.metric();
  CHECK(metric[0] != metric[1] && metric[0] > 0);
  const Layout& layout = in_metres.manifest.layout;
  const int64_t numbers = layout.frames() * layout.H * layout.W * 3;
  for (int64_t i = 0; i < layout.B * numbers; ++i)
    CHECK(in_metres.results.points()[i] == without.results.points()[i] * metric[i / numbers]);
  for (int64_t i = 0; i < layout.images() * 16; ++i) {
    const double factor = i % 4 == 3 && i % 16 != 15 ? static_cast<double>(metric[i / 16 / layout.frames()]) : 1.0;
    CHECK(in_metres.results.camera()[i] == without.results.camera()[i] * factor);
  }
}

void test_known_cameras() {
  const char* name = "da3 of two clips of known cameras";
  HostRun known(plan_named(name), true);
  const Layout& layout = known.manifest.layout;
  CHECK(known.runner.info().unit == Unit::kCameras);
  for (int64_t i = 0; i < layout.images(); ++i) {
    const double x = known.results.camera()[16 * i + 3];
    CHECK(x == -0.3 * static_cast<double>(i % layout.V) && known.results.intrinsics()[9 * i] == 60);
  }
  CHECK(std::isfinite(known.results.depth()[0]) && known.results.depth_confidence()[0] < 1);
  Results alone(known.runner.info());
  Outputs only;
  only.depth = alone.outputs().depth;
  CHECK(known.runner.run(WindowInputs(known.manifest, 11).frames(), only, nullptr).ok());
  CHECK(std::memcmp(alone.depth(), known.results.depth(), known.runner.info().output("depth")->bytes) == 0);
  const Manifest manifest = parse_manifest(plan_named(name).dump(), "");
  const auto loader = checksum_loader();
  CHECK_TEXT(refusal([&] { WindowRunner(manifest, *loader, constants_of(manifest), {}); }),
             "these engines are for known cameras and need the calibration of every view\n  allowed: 3 cameras");
  Options options = options_for(manifest);
  options.cameras[1].K[0] = 0;
  CHECK_TEXT(first_line(refusal([&] { WindowRunner(manifest, *loader, constants_of(manifest), options); })),
             "camera 1: K is not a calibration matrix");
}

// What the host scales it does not write to the device.
void test_scaled_results_stay_on_the_host() {
  for (const auto& [name, output] : {std::pair{"pi3x", "points"}, {"da3 of known cameras", "depth"}}) {
    const Manifest manifest = parse_manifest(plan_named(name).dump(), "");
    CudaDevice device(0);
    Loader loader(device);
    device.enter();
    WindowRunner gpu(manifest, loader, constants_of(manifest), options_for(manifest));
    device.leave();
    Results results(gpu.info());
    Outputs outputs = results.outputs();
    (outputs.*output_called(output)).memory = Memory::kDevice;
    CHECK_TEXT(
        gpu.run(WindowInputs(manifest, 1).frames(), outputs, nullptr).message,
        std::string(output) + " cannot be written to this memory\n  got:     device memory\n  allowed: host memory");
  }
}

// Depth of METRIC is in metres where focal lengths are known.
void test_focal_lengths() {
  const HostRun raw(plan_named("da3-metric"), false), known(plan_named("da3-metric"), true),
      mono(plan_named("da3-mono"), true);
  CHECK(!raw.runner.info().unit && known.runner.info().unit == Unit::kMetres && !mono.runner.info().unit);
  CHECK(raw.results.intrinsics() == nullptr && mono.results.intrinsics() == nullptr);
  const Layout& layout = raw.manifest.layout;
  for (int64_t i = 0; i < layout.images() * layout.H * layout.W; ++i) {
    CHECK(known.results.depth()[i] == static_cast<float>(static_cast<double>(raw.results.depth()[i]) * 0.2));
    CHECK(known.results.sky()[i] == raw.results.sky()[i]);
  }
  for (int64_t i = 0; i < layout.images(); ++i) CHECK(known.results.intrinsics()[9 * i + 4] == 60);
}

void test_no_graph_and_no_memory() {
  const Manifest manifest = parse_manifest(plan_named("default").dump(), "");
  CudaDevice device(0);
  {
    Loader choosy(device, "this stage synchronises");
    device.enter();
    WindowRunner gpu(manifest, choosy, constants_of(manifest), {});
    device.leave();
    CHECK(!gpu.has_graph());
    CHECK_TEXT(gpu.no_graph(), "this stage synchronises");
    Results results(gpu.info());
    CHECK(gpu.run(WindowInputs(manifest, 1).frames(), results.outputs(), nullptr).ok());
  }
  Loader loader(device);
  Caller::limit(1000);
  const std::string message = refusal([&] { WindowRunner(manifest, loader, constants_of(manifest), {}); });
  Caller::limit(size_t{4} << 30);
  CHECK_TEXT(first_line(message), "buffers and scratch do not fit the GPU");
}

void test_refusals() {
  const Manifest manifest = parse_manifest(plan_named("default").dump(), "");
  const auto loader = checksum_loader();
  WindowRunner runner(manifest, *loader, constants_of(manifest), {});
  WindowInputs inputs(manifest, 1);
  Results results(runner.info());
  const auto refusal_of = [&](const Frames& frames, const Outputs& outputs) {
    Status status;
    CHECK(allocations_of([&] { status = runner.run(frames, outputs, nullptr); }) == 0);
    CHECK(status.code == Code::kUsage);
    return std::string(status.message);
  };
  Frames frames = inputs.frames();
  CHECK_TEXT(refusal_of({}, results.outputs()), "a window has no images\n  allowed: 6");
  frames.keypoints = inputs.masks.data();
  CHECK_TEXT(refusal_of(frames, results.outputs()),
             "these engines take no keypoints\n  try:     page4d-export --keypoints");
  frames = inputs.frames();
  frames.memory = &frames;
  CHECK_TEXT(refusal_of(frames, results.outputs()), "these engines have no memory\n  got:     memory");
  frames = inputs.frames();
  inputs.images[3].width = 71;
  CHECK_TEXT(refusal_of(frames, results.outputs()),
             "the image of timestep 1, view 1 has another size than the pipeline was loaded for\n  got:     71x56\n  "
             "allowed: 70x56");
  inputs.images[3] = inputs.images[2];
  inputs.images[3].pitch = 100;
  CHECK_TEXT(
      refusal_of(frames, results.outputs()),
      "the image of timestep 1, view 1 has rows that overlap\n  got:     a pitch of 100 bytes\n  allowed: 210 or more");
  inputs.images[3] = inputs.images[2];
  inputs.images[3].format = PixelFormat::kNv12, inputs.images[3].chroma_pitch = 60;
  CHECK_TEXT(
      refusal_of(frames, results.outputs()),
      "the image of timestep 1, view 1: the rows of an image's second plane overlap\n  allowed: a chroma_pitch of "
      "its width or more, or 0");
  inputs.images[3] = inputs.images[2];
  inputs.images[5].data = nullptr;
  CHECK_TEXT(refusal_of(frames, results.outputs()), "the image of timestep 2, view 1 is not there");
  inputs.images[5] = inputs.images[2];
  for (Image& image : inputs.images) image.memory = Memory::kDevice;
  CHECK_TEXT(
      refusal_of(frames, results.outputs()),
      "the image of timestep 0, view 0 cannot be used where it is\n  got:     device memory\n  allowed: on a GPU, "
      "RGB, in the engines' size 70x56");
  for (Image& image : inputs.images) image.memory = Memory::kHost;
  inputs.masks[0].format = PixelFormat::kRgb8;
  CHECK_TEXT(refusal_of(frames, results.outputs()),
             "the mask of timestep 0, view 0 cannot be used\n  allowed: one channel, in host memory");
  inputs.masks[0].format = PixelFormat::kMono8;
  Outputs outputs = results.outputs();
  outputs.mask.bytes -= 1;
  CHECK_TEXT(refusal_of(frames, outputs),
             "the memory for mask is too small\n  got:     479 bytes\n  allowed: 480 or more");
  outputs = results.outputs();
  outputs.points = outputs.mask;
  CHECK_TEXT(refusal_of(frames, outputs),
             "memory is given for an output that these engines lack\n  allowed: those of EngineInfo::outputs");
  outputs = results.outputs();
  outputs.mask.memory = Memory::kDevice;
  CHECK_TEXT(refusal_of(frames, outputs),
             "mask cannot be written to this memory\n  got:     device memory\n  allowed: host memory");
  CHECK(runner.run(frames, results.outputs(), nullptr).ok());

  const Manifest lined = parse_manifest(plan_named("memory").dump(), "");
  CHECK_TEXT(refusal([&] { WindowRunner(lined, *loader, constants_of(lined), {}); }),
             "these engines have the epipolar prior and need the calibration of every view\n  allowed: 2 cameras");
  auto constants = constants_of(manifest);
  constants["special"].pop_back();
  const std::string message = refusal([&] { WindowRunner(manifest, *loader, constants, {}); });
  CHECK_TEXT(first_line(message), "the constant special is not of the engines' shape");
}

// Overlapping windows equal the same windows without overlap: at every stride, on the host and on the GPU, as a graph
// if no timestep is shared. Shared images are not resized, uploaded or encoded again.
void test_sliding(const nlohmann::ordered_json& plan) {
  const Manifest manifest = parse_manifest(plan.dump(), "");
  const Layout& layout = manifest.layout;
  const auto constants = constants_of(manifest);
  Options options = options_for(manifest);
  const auto host_loader = checksum_loader();
  WindowRunner whole(manifest, *host_loader, constants, options);
  options.sliding = true;
  WindowRunner host(manifest, *host_loader, constants, options);
  CudaDevice device(0);
  Loader loader(device);
  device.enter();
  WindowRunner gpu(manifest, loader, constants, options);
  device.leave();
  CHECK(gpu.has_graph() && gpu.slides() && !whole.slides());
  const EngineInfo& info = whole.info();
  Results expected(info), actual(info), actual_on_gpu(info);
  int64_t start = 0;
  for (const int64_t stride : {int64_t{0}, int64_t{1}, int64_t{1}, layout.T - 1, layout.T, int64_t{1}}) {
    start += stride;
    WindowInputs inputs = WindowInputs::of_film(manifest, start);
    Frames frames = inputs.frames();
    CHECK(whole.run(frames, expected.outputs(), nullptr).ok());
    frames.shared = start == 0 ? 0 : layout.T - stride;
    const int64_t spared = frames.shared * layout.V / manifest.encoder_images * manifest.encoder_images;
    for (int64_t i = 0; i < spared; ++i)
      std::fill(inputs.bytes[static_cast<size_t>(i)].begin(), inputs.bytes[static_cast<size_t>(i)].end(),
                static_cast<unsigned char>(i));
    const long allocations = Caller::count("driver_allocations");
    CHECK(allocations_of([&] { CHECK(host.run(frames, actual.outputs(), nullptr).ok()); }) == 0);
    CHECK(gpu.run(frames, actual_on_gpu.outputs(), nullptr).ok());
    CHECK(Caller::count("driver_allocations") == allocations);
    CHECK(contents(actual, info) == contents(expected, info));
    CHECK(contents(actual_on_gpu, info) == contents(expected, info));
  }
}

void test_what_cannot_be_shared() {
  const nlohmann::ordered_json all = vectors("plans.json");
  const Manifest manifest = parse_manifest(all["slides"][0]["manifest"].dump(), "");
  const auto loader = checksum_loader();
  WindowRunner keeps_nothing(manifest, *loader, constants_of(manifest), options_for(manifest));
  Options options = options_for(manifest);
  options.sliding = true;
  WindowRunner runner(manifest, *loader, constants_of(manifest), options);
  const WindowInputs inputs = WindowInputs::of_film(manifest, 0);
  Results results(runner.info());
  const auto refusal_of = [&](WindowRunner& window, int64_t shared) {
    Frames frames = inputs.frames();
    frames.shared = shared;
    const Status status = window.run(frames, results.outputs(), nullptr);
    CHECK(status.code == Code::kUsage);
    return std::string(status.message);
  };
  const std::string needs = "shared times need what the encoder made of the window before\n  got:     ",
                    hint = "\n  try:     Options::sliding, and a first window";
  CHECK_TEXT(refusal_of(keeps_nothing, 1), needs + "a pipeline that keeps nothing" + hint);
  CHECK_TEXT(refusal_of(runner, 1), needs + "no window before" + hint);
  CHECK(runner.run(inputs.frames(), results.outputs(), nullptr).ok());
  CHECK_TEXT(refusal_of(runner, 3),
             "a window shares a part of its times with the one before\n  got:     shared = 3\n  allowed: 0 to 2");
  CHECK_TEXT(refusal_of(runner, -1),
             "a window shares a part of its times with the one before\n  got:     shared = -1\n  allowed: 0 to 2");
  Frames frames = inputs.frames();
  frames.shared = 1;
  CHECK(runner.run(frames, results.outputs(), nullptr).ok());
  options = options_for(parse_manifest(plan_named("memory float16 B=2").dump(), ""));
  options.sliding = true;
  const Manifest clips = parse_manifest(plan_named("memory float16 B=2").dump(), "");
  WindowRunner side_by_side(clips, *loader, constants_of(clips), options);
  const WindowInputs two(clips, 1);
  Results more(side_by_side.info());
  CHECK(side_by_side.run(two.frames(), more.outputs(), nullptr).ok());
  frames = two.frames();
  frames.shared = 1;
  CHECK_TEXT(side_by_side.run(frames, more.outputs(), nullptr).message, needs + "engines for several clips" + hint);
}

// Every input byte changes the results; masks that are left out count as zeros.
void test_inputs_matter() {
  const Manifest manifest = parse_manifest(plan_named("memory").dump(), "");
  const auto loader = checksum_loader();
  WindowRunner runner(manifest, *loader, constants_of(manifest), options_for(manifest));
  WindowInputs inputs(manifest, 3);
  const auto result = [&](const Frames& frames) {
    Results results(runner.info());
    CHECK(runner.run(frames, results.outputs(), nullptr).ok());
    return contents(results, runner.info());
  };
  Frames frames = inputs.frames();
  const std::string base = result(frames);
  CHECK(result(frames) == base);
  for (const std::vector<Image>* images : {&inputs.images, &inputs.masks, &inputs.keypoints}) {
    auto* last = static_cast<unsigned char*>(const_cast<void*>(images->back().data));
    const size_t end =
        static_cast<size_t>(images->back().width * images->back().height * bytes_per_pixel(images->back().format)) - 1;
    last[end] ^= 0x80;
    CHECK(result(frames) != base);
    last[end] ^= 0x80;
  }
  frames.masks = nullptr;
  const std::string without = result(frames);
  CHECK(without != base);
  for (const Image& mask : inputs.masks)
    std::memset(const_cast<void*>(mask.data), 0, static_cast<size_t>(mask.width * mask.height));
  CHECK(result(inputs.frames()) == without);
}

}  // namespace

int main() {
  const nlohmann::ordered_json all = vectors("plans.json");
  for (const auto& plans : {all["plans"], vectors("published_plans.json")["plans"]}) {
    for (const auto& plan : plans) {
      test_gpu_equals_host(plan["manifest"], true);
      test_gpu_equals_host(plan["manifest"], false);
    }
  }
  for (const auto& plan : all["slides"]) test_sliding(plan["manifest"]);
  test_sliding(plan_named("vggt"));
  test_what_cannot_be_shared();
  test_device_memory("pi3", "points");
  test_device_memory("vggt", "depth");
  test_cameras_alone();
  test_no_graph_and_no_memory();
  test_reference_view();
  test_metres();
  test_known_cameras();
  test_scaled_results_stay_on_the_host();
  test_focal_lengths();
  test_refusals();
  test_inputs_matter();
}
