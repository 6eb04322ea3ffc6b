#include "page4d/rig.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>

#include "boundary.h"
#include "clip/fit.h"
#include "pixels/rgb_row.h"
#include "rig/assembler.h"
#include "rig/ring.h"
#include "runtime/info.h"
#include "text.h"

namespace page4d {
namespace {

constexpr int kMost = 1000;  // windows or pending images: more is a mistake

RigOptions checked(RigOptions options, const EngineInfo& engines) {
  const Layout& layout = engines.layout;
  if (layout.B != 1)
    throw Error(Code::kUsage, "frames are read for one clip at a time")
        .got(text("B = ", layout.B))
        .allowed("an engine for B = 1");
  if (options.stride == 0) options.stride = layout.T;
  if (options.frame_width == 0) options.frame_width = static_cast<int>(layout.W);
  if (options.frame_height == 0) options.frame_height = static_cast<int>(layout.H);
  if (options.stride < 1 || options.stride > layout.T)
    throw Error(Code::kUsage, "the stride between windows is out of range")
        .got(text(options.stride))
        .allowed(text("1 to T = ", layout.T))
        .hint(text("RigOptions::stride = ", std::clamp<int64_t>(options.stride, 1, layout.T)));
  if (!(options.tolerance >= 0) || !std::isfinite(options.tolerance))
    throw Error(Code::kUsage, "the tolerance between stamps is out of range")
        .got(text(options.tolerance))
        .allowed("seconds, 0 or more");
  if (!(options.patience >= options.tolerance) || !std::isfinite(options.patience))
    throw Error(Code::kUsage, "the patience with a camera is out of range")
        .got(text(options.patience))
        .allowed(text("seconds, the tolerance of ", options.tolerance, " or more"));
  const auto check = [](const char* what, int value) {
    if (value < 1 || value > kMost)
      throw Error(Code::kUsage, text("the number of ", what, " is out of range"))
          .got(text(value))
          .allowed(text("1 to ", kMost));
  };
  check("windows that are kept", options.windows);
  check("images that wait", options.pending);
  if (options.missing == Missing::kAbsent && !engines.takes_present) {
    throw Error(Code::kUsage, "these engines need every image of a timestep")
        .got("Missing::kAbsent")
        .allowed("Missing::kSkip, Missing::kRepeat")
        .hint("page4d-export --absent-views");
  }
  return options;
}

}  // namespace

class Rig::Impl {
 public:
  Impl(const EngineInfo& engines, const RigOptions& options)
      : options_(checked(options, engines)),
        cameras_(static_cast<int>(engines.layout.V)),
        no_camera_(Error(Code::kUsage, "there is no such camera").allowed(text("0 to ", cameras_ - 1)).what()),
        wrong_size_(Error(Code::kUsage, "the image is not of the size that the rig was made for")
                        .allowed(text(options_.frame_width, "x", options_.frame_height))
                        .what()),
        assembler_(cameras_, options_),
        ring_(engines.layout, options_.stride, options_.windows, options_.pending) {
    for (int c = 0; c < cameras_; ++c) {
      views_.emplace_back(options_.frame_width, options_.frame_height, engines.layout, fit_for(engines, options_.fit));
      ring_.hold(Ring::kBlack);  // the camera's last image before its first
    }
  }

  Pushed push(int camera, const Image& image, int64_t stamp) noexcept {
    const char* refused = refusal(camera, image, stamp);
    int slot = -1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (is_closed_) refused = "the rig is closed";
      if (refused == nullptr && view(camera).writing) refused = "another thread pushes an image of this camera";
      if (refused != nullptr) return {{Code::kUsage, refused}, ring_.ready()};
      ++view(camera).counts.pushed;
      // An image that is late already need not be resized.
      if (!assembler_.late(camera, stamp)) {
        slot = ring_.reserve(camera);
        view(camera).writing = true;
      }
    }
    if (slot >= 0) view(camera).fitter.image(image, ring_.pixels(slot));  // no lock: no other thread uses the slot

    bool has_window = false;
    int ready = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (slot >= 0) view(camera).writing = false;
      // Its timestep may have ended in the meantime.
      if (!assembler_.push(camera, stamp, slot)) {
        ++view(camera).counts.late;
        if (slot >= 0) ring_.drop(slot);
      }
      has_window = assemble();
      ready = ring_.ready();
    }
    if (has_window) window_completed_.notify_one();
    return {{}, ready};
  }

  bool take(Window& window) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ring_.take(window);
  }

  void release(Window& window) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    ring_.release(window);
  }

  bool wait(double seconds) noexcept {
    constexpr double kLongest = 1e9;  // can be added to a clock in nanoseconds
    const std::chrono::duration<double> time(seconds > 0 ? std::min(seconds, kLongest) : 0);
    std::unique_lock<std::mutex> lock(mutex_);
    window_completed_.wait_for(lock, time, [this] { return ring_.ready() > 0 || is_closed_; });
    return ring_.ready() > 0 && !is_closed_;
  }

  void close() noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      is_closed_ = true;
    }
    window_completed_.notify_all();
  }

  bool closed() const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return is_closed_;
  }

  RigCounts counts() const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int64_t times = ring_.times();
    RigCounts counts;
    counts.times = times;
    counts.windows = ring_.windows_completed();
    counts.windows_dropped = ring_.windows_dropped();
    counts.largest_skew = largest_skew_;
    if (times > 0) counts.mean_skew = sum_of_skews_ / static_cast<double>(times);
    return counts;
  }

  CameraCounts counts(int camera) const noexcept {
    CameraCounts counts;
    if (camera < 0 || camera >= cameras_) return counts;
    const std::lock_guard<std::mutex> lock(mutex_);
    counts = views_[static_cast<size_t>(camera)].counts;
    counts.last_stamp = assembler_.last_stamp(camera);
    return counts;
  }

 private:
  struct View {
    View(int width, int height, const Layout& layout, Fit fit) : fitter(width, height, layout, fit) {}

    Fitter fitter;
    CameraCounts counts;
    bool writing = false;
    int last_slot = Ring::kBlack;  // for Missing::kRepeat: the image that is used again
    int64_t last_stamp = kNoStamp;
  };

  View& view(int camera) noexcept { return views_[static_cast<size_t>(camera)]; }

  // Constant texts, since several threads may hold one. Null: the image is accepted.
  const char* refusal(int camera, const Image& image, int64_t stamp) const noexcept {
    if (camera < 0 || camera >= cameras_) return no_camera_.c_str();
    if (image.data == nullptr) return "the image has no pixels";
    if (image.width != options_.frame_width || image.height != options_.frame_height) return wrong_size_.c_str();
    if (image.memory != Memory::kHost) return "the image is not in host memory";
    if (image.row_bytes() < static_cast<size_t>(image.width) * static_cast<size_t>(bytes_per_pixel(image.format)))
      return "the image's rows overlap";
    if (const char* reason = unreadable(image); reason != nullptr) return reason;
    if (stamp == kNoStamp) return "the image has no stamp";
    return nullptr;
  }

  // Completes every timestep that can be completed. Returns whether a window became complete.
  bool assemble() noexcept {
    bool has_window = false;
    for (Assembler::Step step; (step = assembler_.step()) != Assembler::Step::kNothing;) {
      if (step == Assembler::Step::kDropped) {
        ++view(assembler_.dropped_camera()).counts.unmatched;
        ring_.drop(assembler_.dropped_slot());
        continue;
      }
      for (int c = 0; c < cameras_; ++c) add_view(c, assembler_.time()[c]);
      const double skew = static_cast<double>(assembler_.skew()) / 1e9;
      sum_of_skews_ += skew;
      largest_skew_ = std::max(largest_skew_, skew);
      has_window = ring_.add_time(skew) || has_window;
    }
    return has_window;
  }

  void add_view(int camera, const Assembler::Entry& entry) noexcept {
    View& state = view(camera);
    const bool has_image = entry.slot >= 0;
    ++(has_image ? state.counts.used : state.counts.repeated);
    if (has_image && options_.missing == Missing::kRepeat) {
      ring_.drop(state.last_slot);
      state.last_slot = entry.slot;
      state.last_stamp = entry.stamp;
      ring_.hold(entry.slot);
    }
    if (!has_image) ring_.hold(state.last_slot);
    ring_.set_view(camera, has_image ? entry.slot : state.last_slot, has_image ? entry.stamp : state.last_stamp,
                   !has_image);
  }

  const RigOptions options_;
  const int cameras_;
  const std::string no_camera_, wrong_size_;

  // guards everything below except a view's fitter and the pixels of a slot that is being written
  mutable std::mutex mutex_;
  std::condition_variable window_completed_;
  Assembler assembler_;
  Ring ring_;
  std::deque<View> views_;                      // never moved: a Fitter need not be movable
  double sum_of_skews_ = 0, largest_skew_ = 0;  // seconds
  bool is_closed_ = false;
};

Rig::Rig(const EngineInfo& engines, const RigOptions& options)
    : impl_(only_errors([&] { return std::make_unique<Impl>(engines, options); })) {}
Rig::Rig(Rig&&) noexcept = default;
Rig& Rig::operator=(Rig&&) noexcept = default;
Rig::~Rig() = default;

Pushed Rig::push(int camera, const Image& image, int64_t stamp) noexcept { return impl_->push(camera, image, stamp); }
bool Rig::take(Window& window) noexcept { return impl_->take(window); }
void Rig::release(Window& window) noexcept { impl_->release(window); }
bool Rig::wait(double seconds) noexcept { return impl_->wait(seconds); }
void Rig::close() noexcept { impl_->close(); }
bool Rig::closed() const noexcept { return impl_->closed(); }
RigCounts Rig::counts() const noexcept { return impl_->counts(); }
CameraCounts Rig::counts(int camera) const noexcept { return impl_->counts(camera); }

}  // namespace page4d
