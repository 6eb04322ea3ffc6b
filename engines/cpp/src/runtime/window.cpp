#include "runtime/window.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "clip/cameras.h"
#include "pixels/rgb_row.h"
#include "runtime/host_device.h"
#include "runtime/output_names.h"
#include "text.h"

namespace page4d {
namespace {

constexpr char kNoSuchOutput[] =
    "memory is given for an output that these engines lack\n  allowed: those of EngineInfo::outputs";

// Outputs that are not the engines' own.
bool is_matrix(Output Outputs::* member) { return member == &Outputs::camera || member == &Outputs::intrinsics; }

int frame_side(int requested, int64_t engines) { return requested != 0 ? requested : static_cast<int>(engines); }

}  // namespace

WindowRunner::WindowRunner(const Manifest& manifest, EngineLoader& loader,
                           const std::map<std::string, std::vector<float>>& constants, const Options& options)
    : manifest_(manifest),
      plan_(BufferPlan::make(manifest, options.sliding)),
      info_(info_of(manifest, plan_, !options.cameras.empty())),
      device_(loader.device()),
      on_host_(dynamic_cast<HostDevice*>(&device_) != nullptr),
      fitter_(frame_side(options.frame_width, manifest.layout.W), frame_side(options.frame_height, manifest.layout.H),
              manifest.layout, fit_for(info_, options.fit)),
      chain_(plan_, loader) {
  images_ = input("images", device_), masks_ = input("mask_ext", device_), keypoints_ = input("keypoints", device_),
  memory_ = input("memory", device_);
  for (const char* name : {"special", "memory"}) {
    const BufferView* view = plan_.start(name);
    if (view == nullptr) continue;
    const auto constant = constants.find(name);
    const Bytes value = constant == constants.end() ? Bytes() : converted(constant->second, view->dtype);
    if (static_cast<int64_t>(value.size()) != view->bytes()) {
      throw Error(Code::kIncompatible, text("the constant ", name, " is not of the engines' shape"))
          .allowed(text_of(view->shape))
          .hint("page4d-export again");
    }
    chain_.set_constant(*view, value.data());
    if (view == memory_.view) learned_ = value;
    if (name == std::string("special") && plan_.reference)
      reference_ = std::make_unique<ReferenceStep>(*plan_.reference, chain_, device_, value);
  }
  if (reference_ != nullptr)
    chain_.set_step_after(plan_.reference->call, [this](Stream stream) { return reference_->put(stream); });
  set_lines(options);
  host_results_ = std::make_unique<HostResults>(manifest, plan_, chain_, device_, known_cameras(options));
  consumed_ = device_.make_event(), done_ = device_.make_event();
  for (const Tensor& tensor : info_.outputs) {
    Output Outputs::* member = output_called(tensor.name);
    const BufferView* view = is_matrix(member) ? nullptr : plan_.output(tensor.name);
    targets_.push_back({view, member, member == nullptr ? layers_++ : 0, tensor.bytes, tensor.name});
  }
  seconds_.resize(manifest.stages.size());
  for (const Stage& stage : manifest.stages) times_.push_back({stage.name.c_str(), 0});
  no_graph_ = chain_.prepare(options.use_graph);
}

WindowRunner::~WindowRunner() {
  const Entered entered(device_);
  device_.wait(done_);
}

WindowRunner::Input WindowRunner::input(const char* name, Device& device) {
  const BufferView* view = plan_.start(name);
  if (view == nullptr) return {};
  return {view, static_cast<unsigned char*>(device.staging(static_cast<size_t>(view->bytes())))};
}

// Of every view, in pixels of the engines' images.
std::vector<Camera> WindowRunner::fitted_cameras(const Options& options) const {
  const int64_t views = manifest_.layout.V;
  if (options.cameras.empty()) {
    const char* reason = manifest_.reads("cameras") ? "are for known cameras" : "have the epipolar prior";
    throw Error(Code::kUsage, text("these engines ", reason, " and need the calibration of every view"))
        .allowed(text(views, " cameras"));
  }
  if (static_cast<int64_t>(options.cameras.size()) != views) {
    throw Error(Code::kUsage, "the number of cameras is not the engines'")
        .got(text(options.cameras.size()))
        .allowed(text(views));
  }
  std::vector<Camera> fitted;
  for (const Camera& camera : options.cameras) {
    page4d::check(camera, text(fitted.size()));
    fitted.push_back(fitter_.camera(camera));
  }
  return fitted;
}

void WindowRunner::set_numbers(const BufferView& view, const std::vector<double>& numbers) {
  std::vector<float> narrow;
  for (double number : numbers) narrow.push_back(static_cast<float>(number));
  chain_.set_constant(view, narrow.data());
}

// Cameras do not move against each other: the fundamental matrices are a constant.
void WindowRunner::set_lines(const Options& options) {
  const BufferView* view = plan_.start("fundamental");
  if (view != nullptr) set_numbers(*view, fundamental(fitted_cameras(options)));
}

// The images' cameras, for engines whose results depend on them; those that read them are given them.
std::optional<KnownCameras> WindowRunner::known_cameras(const Options& options) {
  const BufferView* view = plan_.start("cameras");
  if (view == nullptr && (!manifest_.takes_focal_lengths() || options.cameras.empty())) return std::nullopt;
  KnownCameras known(fitted_cameras(options));
  if (view != nullptr) set_numbers(*view, known.encoded(manifest_.layout.H, manifest_.layout.W));
  return known;
}

Status WindowRunner::refuse(Code code, const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message_, sizeof message_, format, arguments);
  va_end(arguments);
  return {code, message_};
}

Status WindowRunner::broken(Failure failure) noexcept {
  const char* stage = chain_.failed_stage();
  if (stage != nullptr) return refuse(Code::kFailure, "%s failed\n  got:     %s", stage, failure);
  return refuse(Code::kFailure, "the GPU refused a call\n  got:     %s", failure);
}

const Output& WindowRunner::of(const Outputs& outputs, const Target& target) const noexcept {
  return target.member != nullptr ? outputs.*target.member : outputs.layers[target.layer];
}

Status WindowRunner::check_images(const char* what, const Image* images, bool mono) noexcept {
  const int64_t count = manifest_.layout.images(), V = manifest_.layout.V, T = manifest_.layout.T;
  for (int64_t i = 0; i < count; ++i) {
    const Image& image = images[i];
    const int t = static_cast<int>(i / V % T), v = static_cast<int>(i % V);
    if (image.data == nullptr) return refuse(Code::kUsage, "%s of timestep %d, view %d is not there", what, t, v);
    if (image.width != fitter_.source_width() || image.height != fitter_.source_height()) {
      return refuse(Code::kUsage,
                    "%s of timestep %d, view %d has another size than the pipeline was loaded for\n  got:     %dx%d\n  "
                    "allowed: %dx%d",
                    what, t, v, image.width, image.height, fitter_.source_width(), fitter_.source_height());
    }
    const size_t least = static_cast<size_t>(image.width) * static_cast<size_t>(bytes_per_pixel(image.format));
    if (image.row_bytes() < least) {
      return refuse(
          Code::kUsage,
          "%s of timestep %d, view %d has rows that overlap\n  got:     a pitch of %zu bytes\n  allowed: %zu or more",
          what, t, v, image.pitch, least);
    }
    if (const char* reason = unreadable(image); reason != nullptr)
      return refuse(Code::kUsage, "%s of timestep %d, view %d: %s", what, t, v, reason);
    if (mono && (image.format != PixelFormat::kMono8 || image.memory != Memory::kHost)) {
      return refuse(Code::kUsage, "%s of timestep %d, view %d cannot be used\n  allowed: one channel, in host memory",
                    what, t, v);
    }
    if (image.memory != images[0].memory)
      return refuse(Code::kUsage, "images are partly on the device, partly on the host\n  allowed: one of both");
    if (image.memory == Memory::kDevice && (on_host_ || image.format != PixelFormat::kRgb8 ||
                                            image.width != manifest_.layout.W || image.height != manifest_.layout.H)) {
      return refuse(
          Code::kUsage,
          "%s of timestep %d, view %d cannot be used where it is\n  got:     device memory\n  allowed: on a GPU, "
          "RGB, in the engines' size %dx%d",
          what, t, v, static_cast<int>(manifest_.layout.W), static_cast<int>(manifest_.layout.H));
    }
  }
  return {};
}

Status WindowRunner::check_present(const uint8_t* present) noexcept {
  const int64_t views = manifest_.layout.V, frames = manifest_.layout.frames();
  int64_t there = 0;  // of a clip
  for (int64_t i = 0; present != nullptr && i < manifest_.layout.images(); ++i) {
    if (i % frames == 0) there = 0;
    there += present[i] != 0;
    if (present[i] == 0 && !info_.takes_present) {
      return refuse(Code::kUsage,
                    "the image of timestep %d, view %d is absent, and these engines need every image\n  try:     "
                    "page4d-export --absent-views",
                    static_cast<int>(i % frames / views), static_cast<int>(i % views));
    }
    if (i % frames == frames - 1 && there == 0)
      return refuse(Code::kUsage, "every image of a clip is absent\n  allowed: 1 or more that are there");
  }
  return {};
}

Status WindowRunner::check(const Frames& frames, const Outputs& outputs) noexcept {
  if (frames.images == nullptr)
    return refuse(Code::kUsage, "a window has no images\n  allowed: %d", static_cast<int>(manifest_.layout.images()));
  if (Status status = check_present(frames.present); !status) return status;
  if (Status status = check_images("the image", frames.images, false); !status) return status;
  if (frames.shared != 0) {
    const int T = static_cast<int>(manifest_.layout.T), shared = static_cast<int>(frames.shared);
    if (frames.shared < 0 || frames.shared >= manifest_.layout.T) {
      return refuse(
          Code::kUsage,
          "a window shares a part of its times with the one before\n  got:     shared = %d\n  allowed: 0 to %d", shared,
          T - 1);
    }
    if (manifest_.layout.B > 1 || !slides() || !is_whole_) {
      const char* got = manifest_.layout.B > 1 ? "engines for several clips"
                        : !slides()            ? "a pipeline that keeps nothing"
                                               : "no window before";
      return refuse(Code::kUsage,
                    "shared times need what the encoder made of the window before\n  got:     %s\n  try:     "
                    "Options::sliding, and a first window",
                    got);
    }
  }
  if (frames.masks != nullptr && masks_.view == nullptr) {
    return refuse(
        Code::kUsage,
        "these engines are of a published model and take no external mask\n  got:     masks\n  allowed: no masks");
  }
  if (frames.keypoints != nullptr && keypoints_.view == nullptr) {
    return refuse(Code::kUsage, "these engines take no keypoints\n  try:     page4d-export --keypoints");
  }
  if (frames.keypoints == nullptr && keypoints_.view != nullptr) {
    return refuse(Code::kUsage,
                  "these engines were exported with --keypoints and need them\n  allowed: a heat map for every image");
  }
  if (frames.memory != nullptr && memory_.view == nullptr)
    return refuse(Code::kUsage, "these engines have no memory\n  got:     memory");
  if (frames.masks != nullptr) {
    if (Status status = check_images("the mask", frames.masks, true); !status) return status;
  }
  if (frames.keypoints != nullptr) {
    if (Status status = check_images("the keypoint map", frames.keypoints, true); !status) return status;
  }
  for (const Target& target : targets_) {
    const Output& output = of(outputs, target);
    if (output.data == nullptr) continue;
    if (output.bytes < target.bytes) {
      return refuse(Code::kUsage, "the memory for %s is too small\n  got:     %zu bytes\n  allowed: %zu or more",
                    target.name.c_str(), output.bytes, target.bytes);
    }
    if (output.memory == Memory::kDevice && (on_host_ || host_results_->computes(target.member))) {
      return refuse(Code::kUsage,
                    "%s cannot be written to this memory\n  got:     device memory\n  allowed: host memory",
                    target.name.c_str());
    }
  }
  for (const NamedOutput& output : kNamedOutputs) {
    const bool exists = std::any_of(targets_.begin(), targets_.end(),
                                    [&](const Target& target) { return target.member == output.member; });
    if ((outputs.*output.member).data != nullptr && !exists) return refuse(Code::kUsage, kNoSuchOutput);
  }
  for (int layer = layers_; layer < Outputs::kMostLayers; ++layer) {
    if (outputs.layers[layer].data != nullptr) return refuse(Code::kUsage, kNoSuchOutput);
  }
  return {};
}

Status WindowRunner::run(const Frames& frames, const Outputs& outputs, void* stream) noexcept {
  // a constant text: the other thread may write message_
  if (running_.test_and_set(std::memory_order_acquire))
    return {Code::kUsage, "another thread runs a window of this pipeline\n  allowed: one thread at a time"};
  const Status status = run_alone(frames, outputs, stream);
  running_.clear(std::memory_order_release);
  return status;
}

Status WindowRunner::run_alone(const Frames& frames, const Outputs& outputs, void* caller_stream) noexcept {
  if (Status status = check(frames, outputs); !status) return status;
  const Entered entered(device_);
  if (entered.failure() != nullptr) return broken(entered.failure());
  const Stream stream = caller_stream != nullptr ? caller_stream : device_.own_stream();
  is_whole_ = false;  // until everything is on the stream
  const Failure failure = put(frames, outputs, stream);
  is_whole_ = failure == nullptr;
  if (failure == nullptr) return {};
  const Status status = broken(failure);
  // copies to and from the caller's memory may be under way, and no event tells when they are done
  device_.synchronize(stream);
  return status;
}

Failure WindowRunner::put(const Frames& frames, const Outputs& outputs, Stream stream) noexcept {
  if (Failure failure = device_.wait(host_results_->is_asked(outputs) ? done_ : consumed_)) return failure;
  // The window before may be on another stream. Always, since handles do not tell streams apart: a new stream may get
  // the handle of an old one, and the default streams of all threads have the same.
  if (Failure failure = device_.follow(done_, stream)) return failure;
  Failure failure = put_images(frames, stream);
  if (failure == nullptr) failure = put_maps(frames.masks, masks_, stream);
  if (failure == nullptr) failure = put_maps(frames.keypoints, keypoints_, stream);
  if (failure == nullptr && memory_.view != nullptr) {
    const auto size = static_cast<size_t>(memory_.view->bytes());
    std::memcpy(memory_.staging, frames.memory != nullptr ? frames.memory : learned_.data(), size);
    failure = device_.upload(chain_.at(*memory_.view), memory_.staging, size, stream);
  }
  if (failure == nullptr) failure = device_.record(consumed_, stream);
  if (failure == nullptr) failure = chain_.run(stream, frames.shared);
  for (const Target& target : targets_) {
    const Output& output = of(outputs, target);
    if (failure == nullptr && output.data != nullptr && target.view != nullptr) failure = fetch(target, output, stream);
  }
  if (failure == nullptr) failure = host_results_->put(outputs, stream);
  if (failure == nullptr) failure = device_.record(done_, stream);
  if (failure == nullptr && stream == device_.own_stream()) failure = device_.synchronize(stream);
  return failure;
}

// The first image that a call of the encoder reads.
int64_t WindowRunner::first_image(const Frames& frames) const noexcept {
  return frames.shared * manifest_.layout.V / manifest_.encoder_images * manifest_.encoder_images;
}

Failure WindowRunner::put_images(const Frames& frames, Stream stream) noexcept {
  const Layout& layout = manifest_.layout;
  auto* target = static_cast<unsigned char*>(chain_.at(*images_.view));
  const auto size = static_cast<size_t>(layout.image_bytes()), row = static_cast<size_t>(layout.W) * 3;
  if (frames.images[0].memory == Memory::kDevice) {
    for (int64_t i = first_image(frames); i < layout.images(); ++i) {
      const Image& image = frames.images[i];
      const auto rows = static_cast<size_t>(layout.H);
      if (Failure failure = device_.copy_rows(target + static_cast<size_t>(i) * size, row, image.data,
                                              image.row_bytes(), row, rows, stream))
        return failure;
    }
    return nullptr;
  }
  const int64_t first = first_image(frames);
  const size_t skipped = static_cast<size_t>(first) * size;
  for (int64_t i = first; i < layout.images(); ++i)
    fitter_.image(frames.images[i], images_.staging + static_cast<size_t>(i) * size);
  return device_.upload(target + skipped, images_.staging + skipped,
                        static_cast<size_t>(images_.view->bytes()) - skipped, stream);
}

// images null: maps of zeros.
Failure WindowRunner::put_maps(const Image* images, const Input& input, Stream stream) noexcept {
  if (input.view == nullptr) return nullptr;
  const int64_t P = manifest_.layout.P();
  auto* target = reinterpret_cast<float*>(input.staging);
  if (images == nullptr) {
    std::memset(input.staging, 0, static_cast<size_t>(input.view->bytes()));
  } else {
    for (int64_t i = 0; i < manifest_.layout.images(); ++i) fitter_.patch_mean(images[i], target + i * P);
  }
  return device_.upload(chain_.at(*input.view), input.staging, static_cast<size_t>(input.view->bytes()), stream);
}

Failure WindowRunner::fetch(const Target& target, const Output& output, Stream stream) noexcept {
  const void* source = chain_.at(*target.view);
  const auto size = static_cast<size_t>(target.view->bytes());
  if (output.memory == Memory::kHost) return device_.download(output.data, source, size, stream);
  // row by row: the device copies in two dimensions, with a pitch of up to 2 GiB
  const size_t row = static_cast<size_t>(target.view->shape.back()) * bytes_of(target.view->dtype);
  return device_.copy_rows(output.data, row, source, row, row, size / row, stream);
}

const StageTime* WindowRunner::times() noexcept {
  if (const Entered entered(device_); entered.failure() == nullptr) {
    device_.wait(done_);
    chain_.seconds(seconds_.data());
  }
  for (size_t i = 0; i < times_.size(); ++i) times_[i].seconds = seconds_[i];
  return times_.data();
}

}  // namespace page4d
