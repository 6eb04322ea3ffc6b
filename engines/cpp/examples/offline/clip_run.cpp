#include "clip_run.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>

#include "half.h"
#include "output_folder.h"
#include "overlay.h"
#include "page4d/fit.h"
#include "predictions.h"
#include "report.h"
#include "safetensors_file.h"
#include "window_reader.h"
#include "windows.h"

namespace offline {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using page4d::DType;

double since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

bool overlap(const std::vector<int64_t>& starts, int64_t T) {
  return std::adjacent_find(starts.begin(), starts.end(), [T](int64_t one, int64_t next) { return next < one + T; }) !=
         starts.end();
}

// A checked run.
class ClipRun {
 public:
  ClipRun(const RunOptions& options, const FrameFolder& folder, const page4d::EngineInfo& engines,
          std::vector<int64_t> starts)
      : options_(options),
        folder_(folder),
        starts_(std::move(starts)),
        fit_(folder.size().first, folder.size().second, engines.layout, options.fit),
        pipeline_(page4d::Pipeline::load(
            options.engines.string(), pipeline_options(options, folder, engines, overlap(starts_, engines.layout.T)))),
        results_(pipeline_.info()),
        names_(folder.frame_names()) {
    Placement& place = placement_;
    place.source_width = folder.size().first, place.source_height = folder.size().second;
    fit_.target(place.left, place.top, place.width, place.height);
    fit_.scale_shift(place.scale, place.shift);
  }

  Summary run(const fs::path& out, bool (*stop)()) {
    const page4d::EngineInfo& info = pipeline_.info();
    Summary summary = begun();
    WindowReader reader(folder_, info, starts_);
    for (size_t number = 0; number < starts_.size(); ++number) {
      const int64_t start = starts_[number],
                    shared = number == 0 ? 0 : std::max<int64_t>(starts_[number - 1] + info.layout.T - start, 0);
      const WindowImages images = reader.next();
      if (stop()) throw Interrupted{};
      const auto began = Clock::now();
      compute(images, shared);
      for (size_t i = 0; i < info.stages.size(); ++i) {
        const page4d::StageInfo& stage = info.stages[i];
        const int64_t spared = stage.kind == "encoder" ? shared * info.layout.V / info.encoder_images : 0;  // calls
        summary.stage_flop[i].second += stage.flop * (stage.calls - spared);
      }
      const page4d::StageTime* times = pipeline_.times();
      for (size_t i = 0; i < info.stages.size(); ++i) summary.stage_seconds[i].second += times[i].seconds;
      const double seconds = since(began);
      const auto writing = Clock::now();
      summary.windows.push_back(write(out, start, images));
      summary.windows.back().seconds = seconds;
      summary.write_seconds += since(writing);
    }
    finish(summary, reader.seconds());
    write_file(out / kSummary, to_json(summary).dump(1) + "\n");
    write_file(out / kReport, report(summary));
    return summary;
  }

 private:
  static page4d::Options pipeline_options(const RunOptions& options, const FrameFolder& folder,
                                          const page4d::EngineInfo& engines, bool overlap) {
    page4d::Options result;
    result.sliding = overlap;
    result.backend = options.backend;
    result.frame_width = folder.size().first, result.frame_height = folder.size().second;
    result.fit = options.fit;
    if (engines.input("fundamental") != nullptr) result.cameras = folder.cameras();
    return result;
  }

  // Everything that is known before the first window.
  Summary begun() const {
    const page4d::EngineInfo& info = pipeline_.info();
    Summary summary;
    summary.page4d = PAGE4D_VERSION;
    summary.engines = path_text(options_.engines), summary.frames = path_text(options_.frames);
    summary.model = info.model, summary.weights = info.weights, summary.layout = info.layout,
    summary.precision = info.precision;
    summary.backend = pipeline_.described();
    summary.cameras = folder_.camera_names();
    summary.buffer_bytes = info.buffer_bytes;
    summary.startup_seconds = since(options_.began);
    for (const page4d::StageInfo& stage : info.stages) {
      summary.stage_seconds.emplace_back(stage.name, 0.0);
      summary.stage_flop.emplace_back(stage.name, 0);
    }
    const bool reads_mask = info.input("mask_ext") != nullptr;
    if (reads_mask && !folder_.has_masks())
      summary.warnings.push_back("no external masks were given: the mask is the network's alone");
    if (!reads_mask && folder_.has_masks()) {
      summary.warnings.push_back(
          "the clip's masks were not used: these engines are of a published model, which takes none");
    }
    return summary;
  }

  void finish(Summary& summary, double decode_seconds) const {
    summary.decode_seconds = decode_seconds;
    summary.wall_seconds = since(options_.began);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    summary.peak_rss_bytes = int64_t{usage.ru_maxrss} * 1024;
    std::vector<std::string> more = pipeline_.warnings();
    for (const WindowSummary& window : summary.windows) {
      if (window.predictions)
        more.insert(more.end(), window.predictions->warnings.begin(), window.predictions->warnings.end());
    }
    for (const std::string& warning : more) {  // windows warn of the same
      if (std::find(summary.warnings.begin(), summary.warnings.end(), warning) == summary.warnings.end())
        summary.warnings.push_back(warning);
    }
  }

  void compute(const WindowImages& images, int64_t shared) {
    const std::vector<page4d::Image> shown = WindowImages::views(images.frames),
                                     masks = WindowImages::views(images.masks);
    const std::vector<page4d::Image> keypoints = WindowImages::views(images.keypoints);
    page4d::Frames frames;
    frames.images = shown.data();
    frames.masks = masks.empty() ? nullptr : masks.data();
    frames.keypoints = keypoints.empty() ? nullptr : keypoints.data();
    frames.memory = memory_.empty() ? nullptr : memory_.data();
    frames.shared = shared;
    const page4d::Status status = pipeline_.run(frames, results_.outputs());
    if (!status) throw page4d::Error(status.code, status.message);
    // a window begins where the one before it ended
    if (const page4d::Tensor* memory = pipeline_.info().output("memory")) {
      const auto* bytes = static_cast<const char*>(results_.data("memory"));
      memory_.assign(bytes, bytes + memory->bytes);
    }
  }

  WindowSummary write(const fs::path& out, int64_t start, const WindowImages& images) {
    const page4d::Layout& layout = pipeline_.info().layout;
    WindowSummary window;
    const size_t digits = std::to_string(folder_.count() - 1).size();
    const auto padded = [digits](int64_t t) {
      const std::string number = std::to_string(t);
      return std::string(digits - number.size(), '0') + number;
    };
    window.name = "window_" + padded(start) + "-" + padded(start + layout.T - 1);
    window.first_frame = names_[static_cast<size_t>(start)],
    window.last_frame = names_[static_cast<size_t>(start + layout.T - 1)];
    window.file = window.name + ".safetensors";
    write_results(out / window.file);
    const float* mask = results_.mask();
    const auto* points = static_cast<const float*>(results_.data("points"));
    if (mask == nullptr && points == nullptr) return window;
    fitted_.resize(static_cast<size_t>(layout.frames() * layout.image_bytes()));
    const std::vector<page4d::Image> shown = WindowImages::views(images.frames);
    for (size_t i = 0; i < shown.size(); ++i)
      fit_.image(shown[i], fitted_.data() + i * static_cast<size_t>(layout.image_bytes()));
    if (mask != nullptr) write_overlays(out, start, mask, window);
    if (points != nullptr) window.predictions = write_predictions(predictions(start), out, place_of(out, window.name));
    return window;
  }

  void write_results(const fs::path& path) const {
    std::vector<NamedTensor> tensors;
    std::vector<std::vector<float>> wide;  // 16 bits that few programs read are written as float32
    wide.reserve(pipeline_.info().outputs.size());
    for (const page4d::Tensor& tensor : pipeline_.info().outputs) {
      const void* data = results_.data(tensor.name);
      NamedTensor named{tensor.name, "F32", tensor.shape, data, tensor.bytes};
      if (tensor.name == "camera") named.dtype = "F64";
      if (tensor.dtype == DType::kFloat16) named.dtype = "F16";
      if (tensor.dtype == DType::kBfloat16) {
        wide.push_back(float_of_bfloat16(static_cast<const uint16_t*>(data), tensor.bytes / sizeof(uint16_t)));
        named.data = wide.back().data();
        named.bytes = wide.back().size() * sizeof(float);
      }
      tensors.push_back(named);
    }
    write_safetensors(path, std::move(tensors));
  }

  // Every frame with its mask over it, and each camera's mean.
  void write_overlays(const fs::path& out, int64_t start, const float* mask, WindowSummary& window) const {
    const page4d::Layout& layout = pipeline_.info().layout;
    const auto H = static_cast<int>(layout.H), W = static_cast<int>(layout.W);
    for (int64_t v = 0; v < layout.V; ++v) {
      const std::string& camera = folder_.camera_names()[static_cast<size_t>(v)];
      const fs::path place = fs::path("masks") / window.name / camera;
      fs::create_directories(out / place);
      double sum = 0;
      for (int64_t row = 0; row < layout.T; ++row) {
        const float* patches = mask + (row * layout.V + v) * layout.P();
        const uint8_t* image = fitted_.data() + (row * layout.V + v) * layout.image_bytes();
        for (int64_t i = 0; i < layout.P(); ++i) sum += static_cast<double>(patches[i]);
        const fs::path path = place / (names_[static_cast<size_t>(start + row)] + ".png");
        const std::vector<uint8_t> picture =
            overlay(image, H, W, patches, static_cast<int>(layout.h()), static_cast<int>(layout.w()));
        write_file(out / path, encode_png(W, H, Colour::kRgb, picture.data()));
        window.overlays.push_back(path.generic_string());
      }
      const double mean = sum / static_cast<double>(layout.T * layout.P());
      window.mask_mean.emplace_back(camera, std::isfinite(mean) ? std::optional(mean) : std::nullopt);
    }
  }

  fs::path place_of(const fs::path& out, const std::string& window) const {
    if (starts_.size() == 1) return out;
    fs::create_directories(out / window);
    return out / window;
  }

  Predictions predictions(int64_t start) const {
    const page4d::Layout& layout = pipeline_.info().layout;
    const auto* points = static_cast<const float*>(results_.data("points"));
    const auto* confidence = static_cast<const float*>(results_.data("confidence"));
    Predictions result{{}, folder_.camera_names(), {}, placement_, static_cast<float>(options_.min_confidence)};
    for (int64_t i = 0; i < layout.frames(); ++i) {
      const int64_t pixels = layout.H * layout.W;
      result.views.push_back({static_cast<int>(layout.H), static_cast<int>(layout.W),
                              fitted_.data() + i * layout.image_bytes(), points + 3 * i * pixels,
                              confidence + i * pixels, results_.camera() + 16 * i});
    }
    for (const std::string& camera : folder_.camera_names()) {
      result.frames.push_back(folder_.photos() ? camera : camera + "/" + names_[static_cast<size_t>(start)]);
    }
    return result;
  }

  const RunOptions& options_;
  const FrameFolder& folder_;
  std::vector<int64_t> starts_;
  page4d::ImageFit fit_;
  page4d::Pipeline pipeline_;
  page4d::Results results_;
  std::vector<std::string> names_;
  Placement placement_{};
  std::vector<char> memory_;
  std::vector<uint8_t> fitted_;  // [T,V,H,W,3], the window's images as the engines see them
};

}  // namespace

Summary run_clip(const RunOptions& options, bool (*stop)()) {
  const page4d::EngineInfo engines = page4d::inspect(options.engines.string());
  const FrameFolder folder = FrameFolder::open(options.frames, options.companions, loose_of(engines.layout));
  refuse_taken(options.out);
  check_clip(folder, engines);
  const page4d::ImageFit fits(folder.size().first, folder.size().second, engines.layout,
                              options.fit);  // refused before windows are counted
  std::vector<int64_t> starts = windows(folder.count(), engines.layout.T, options.stride.value_or(engines.layout.T));
  ClipRun run(options, folder, engines, std::move(starts));
  StagedFolder staged(options.out);
  Summary summary = run.run(staged.path(), stop);
  staged.take_place();
  return summary;
}

}  // namespace offline
