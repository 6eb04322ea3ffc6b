#include "runtime/window.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "clip/cameras.h"
#include "runtime/host_device.h"
#include "runtime/output_names.h"
#include "text.h"

namespace page4d {
namespace {

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
  Bytes special;
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
    if (name == std::string("special")) special = value;
  }
  if (plan_.reference)
    reference_ = std::make_unique<ReferenceStep>(*plan_.reference, plan_.start("present"), chain_, device_, special);
  if (reference_ != nullptr)
    chain_.set_step_after(plan_.reference->call, [this](Stream stream) { return reference_->put(stream); });
  set_lines(options);
  const std::optional<KnownCameras> known = known_cameras(options);
  absence_ = std::make_unique<Absence>(manifest, plan_, chain_, device_, special, known);
  host_results_ = std::make_unique<HostResults>(manifest, plan_, chain_, device_, known);
  consumed_ = device_.make_event(), done_ = device_.make_event();
  for (const Tensor& tensor : info_.outputs) {
    Output Outputs::* member = output_called(tensor.name);
    const BufferView* view = is_matrix(member) ? nullptr : plan_.output(tensor.name);
    const bool is_of_images =
        view != nullptr && member != nullptr && member != &Outputs::memory && member != &Outputs::metric;
    targets_.push_back({view, member, member == nullptr ? layers_++ : 0, tensor.bytes, tensor.name, is_of_images});
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
  absence_->set(frames.present);
  Failure failure = absence_->put(stream);
  if (failure == nullptr) failure = put_images(frames, stream);
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
  if (failure == nullptr) failure = host_results_->put(outputs, absence_->present(), stream);
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
  if (frames.images[absence_->first_present()].memory == Memory::kDevice) {
    for (int64_t i = first_image(frames); i < layout.images(); ++i) {
      const Image& image = frames.images[i];
      const auto rows = static_cast<size_t>(layout.H);
      if (!absence_->is_present(i)) {
        if (Failure failure = device_.fill(target + static_cast<size_t>(i) * size, 0, size / sizeof(uint32_t), stream))
          return failure;
        continue;
      }
      if (Failure failure = device_.copy_rows(target + static_cast<size_t>(i) * size, row, image.data,
                                              image.row_bytes(), row, rows, stream))
        return failure;
    }
    return nullptr;
  }
  const int64_t first = first_image(frames);
  const size_t skipped = static_cast<size_t>(first) * size;
  for (int64_t i = first; i < layout.images(); ++i) {
    unsigned char* staging = images_.staging + static_cast<size_t>(i) * size;
    if (absence_->is_present(i)) {
      fitter_.image(frames.images[i], staging);
    } else {
      std::memset(staging, 0, size);
    }
  }
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
    for (int64_t i = 0; i < manifest_.layout.images(); ++i) {
      if (absence_->is_present(i)) {
        fitter_.patch_mean(images[i], target + i * P);
      } else {
        std::fill_n(target + i * P, P, 0.0f);
      }
    }
  }
  return device_.upload(chain_.at(*input.view), input.staging, static_cast<size_t>(input.view->bytes()), stream);
}

Failure WindowRunner::fetch(const Target& target, const Output& output, Stream stream) noexcept {
  if (target.is_of_images) {
    if (Failure failure = absence_->leave_out(*target.view, stream)) return failure;
  }
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
