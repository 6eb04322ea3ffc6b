// The C interface: objects are handles, exceptions become codes, the message of an error is kept for its thread.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <limits>
#include <new>
#include <vector>

#include "boundary.h"
#include "page4d/geometry.h"
#include "page4d/page4d.h"
#include "page4d/pipeline.h"
#include "page4d/rig.h"

namespace {

thread_local char last_error[2048] = "";

int remember(page4d::Code code, const char* message) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return static_cast<int>(code);
}

template <class F>
int guarded(const F& body) noexcept {
  try {
    body();
    return PAGE4D_OK;
  } catch (const page4d::Error& error) {
    return remember(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return remember(page4d::Code::kOutOfMemory, page4d::kOutOfMemoryText);
  } catch (const std::exception& error) {
    return remember(page4d::Code::kFailure, error.what());
  } catch (...) {
    return remember(page4d::Code::kFailure, "an unknown error");
  }
}

int missing(const char* argument) noexcept {
  char message[128];
  std::snprintf(message, sizeof message, "an argument is null\n  got:     %s", argument);
  return remember(page4d::Code::kUsage, message);
}

// A number as a value of an enumeration that ends with `last`. Throws Error kUsage if it is out of range.
template <class E>
E enumerated(int32_t number, E last, const char* what) {
  if (number < 0 || number > static_cast<int32_t>(last)) {
    throw page4d::Error(page4d::Code::kUsage, std::string(what) + " is out of range")
        .got(std::to_string(number))
        .allowed("0 to " + std::to_string(static_cast<int32_t>(last)));
  }
  return static_cast<E>(number);
}

constexpr char kImageRefused[] = "an image's pixels or memory are out of range, or its reserved bytes are not zero";

static_assert(static_cast<int>(page4d::PixelFormat::kMono8) == PAGE4D_MONO8 &&
              static_cast<int>(page4d::PixelFormat::kUyvy) == PAGE4D_UYVY &&
              static_cast<int>(page4d::PixelFormat::kBayerGrbg8) == PAGE4D_BAYER_GRBG8);

// False: kImageRefused.
bool convert(const page4d_image& from, page4d::Image& to) noexcept {
  if (from.pixels < 0 || from.pixels > PAGE4D_BAYER_GRBG8 || from.memory < 0 || from.memory > PAGE4D_DEVICE)
    return false;
  if (std::any_of(std::begin(from.reserved), std::end(from.reserved), [](uint64_t bytes) { return bytes != 0; }))
    return false;
  to = {from.data,
        from.width,
        from.height,
        from.pitch,
        static_cast<page4d::PixelFormat>(from.pixels),
        static_cast<page4d::Memory>(from.memory),
        from.chroma,
        from.chroma_pitch};
  return true;
}

page4d_image convert(const page4d::Image& from) noexcept {
  return {from.data,
          from.width,
          from.height,
          from.pitch,
          static_cast<int32_t>(from.format),
          static_cast<int32_t>(from.memory),
          from.chroma,
          from.chroma_pitch,
          {}};
}

// False if its memory is out of range.
bool convert(const page4d_output& from, page4d::Output& to) noexcept {
  if (from.memory < 0 || from.memory > PAGE4D_DEVICE) return false;
  to = {from.data, from.bytes, static_cast<page4d::Memory>(from.memory)};
  return true;
}

// False if the memory of one of them is out of range.
bool convert(const page4d_outputs& from, page4d::Outputs& to) noexcept {
  bool fits = convert(from.mask, to.mask) && convert(from.memory, to.memory) && convert(from.points, to.points) &&
              convert(from.confidence, to.confidence) && convert(from.camera, to.camera) &&
              convert(from.points_confidence, to.points_confidence) && convert(from.depth, to.depth) &&
              convert(from.depth_confidence, to.depth_confidence) && convert(from.intrinsics, to.intrinsics) &&
              convert(from.metric, to.metric) && convert(from.sky, to.sky);
  for (int32_t i = 0; from.layers != nullptr && i < from.layer_count; ++i)
    fits = fits && convert(from.layers[i], to.layers[i]);
  return fits;
}

page4d_layout convert(const page4d::Layout& layout) noexcept {
  return {layout.T, layout.V, layout.H, layout.W, layout.B, layout.registers};
}

page4d::Options convert(const page4d_options& from) {
  page4d::Options to;
  to.backend = enumerated(from.backend, page4d::Backend::kTest, "the backend");
  to.device = from.device;
  to.frame_width = from.frame_width, to.frame_height = from.frame_height;
  to.fit = enumerated(from.fit, page4d::Fit::kPublishedDa3, "the fit");
  to.files = from.used_files_only != 0 ? page4d::Files::kUsed : page4d::Files::kAll;
  to.use_graph = from.no_graph == 0;
  if (from.camera_count < 0 || (from.cameras == nullptr && from.camera_count > 0)) {
    throw page4d::Error(page4d::Code::kUsage, "there are not as many cameras as camera_count says")
        .got(std::to_string(from.camera_count));
  }
  for (int32_t i = 0; i < from.camera_count; ++i) {
    page4d::Camera camera;
    camera.width = from.cameras[i].width, camera.height = from.cameras[i].height;
    std::copy(std::begin(from.cameras[i].K), std::end(from.cameras[i].K), camera.K);
    std::copy(std::begin(from.cameras[i].world_to_camera), std::end(from.cameras[i].world_to_camera),
              camera.world_to_camera);
    to.cameras.push_back(camera);
  }
  if (from.tensorrt_library != nullptr) to.tensorrt_library = from.tensorrt_library;
  if (from.plugin_library != nullptr) to.plugin_library = from.plugin_library;
  if (from.onnxruntime_library != nullptr) to.onnxruntime_library = from.onnxruntime_library;
  to.threads = from.threads;
  to.sliding = from.sliding != 0;
  to.load_folder_plugins = from.load_folder_plugins != 0;
  return to;
}

}  // namespace

struct page4d_pipeline {
  page4d::Pipeline pipeline;
  std::vector<page4d::Image> images, masks, keypoints;  // of one window, allocated here: a run allocates nothing
  std::atomic_flag running = ATOMIC_FLAG_INIT;          // whether a thread is in page4d_run and uses these images

  explicit page4d_pipeline(page4d::Pipeline loaded) : pipeline(std::move(loaded)) {
    for (auto* converted : {&images, &masks, &keypoints})
      converted->resize(static_cast<size_t>(pipeline.info().layout.images()));
  }
};

struct page4d_rig {
  page4d::Rig rig;
  page4d::Window window;
  std::vector<page4d_image> images;

  page4d_rig(const page4d::EngineInfo& engines, const page4d::RigOptions& options)
      : rig(engines, options), images(static_cast<size_t>(engines.layout.frames())) {}
};

const char* page4d_last_error(void) { return last_error; }

int page4d_inspect(const char* folder, page4d_layout* layout, size_t* buffer_bytes) {
  if (folder == nullptr) return missing("folder");
  return guarded([&] {
    const page4d::EngineInfo info = page4d::inspect(folder);
    if (layout != nullptr) *layout = convert(info.layout);
    if (buffer_bytes != nullptr) *buffer_bytes = info.buffer_bytes;
  });
}

int page4d_load(const char* folder, const page4d_options* options, page4d_pipeline** pipeline) {
  if (folder == nullptr || pipeline == nullptr) return missing(folder == nullptr ? "folder" : "pipeline");
  *pipeline = nullptr;
  return guarded([&] {
    *pipeline =
        new page4d_pipeline(page4d::Pipeline::load(folder, options == nullptr ? page4d::Options{} : convert(*options)));
  });
}

void page4d_free(page4d_pipeline* pipeline) { delete pipeline; }

page4d_layout page4d_layout_of(const page4d_pipeline* pipeline) {
  if (pipeline != nullptr) return convert(pipeline->pipeline.info().layout);
  missing("pipeline");
  return {};
}

const char* page4d_unit(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return missing("pipeline"), nullptr;
  const std::optional<page4d::Unit>& unit = pipeline->pipeline.info().unit;
  if (!unit) return nullptr;
  return *unit == page4d::Unit::kMetres ? "metres" : "cameras";
}

int32_t page4d_output_count(const page4d_pipeline* pipeline) {
  if (pipeline != nullptr) return static_cast<int32_t>(pipeline->pipeline.info().outputs.size());
  missing("pipeline");
  return 0;
}

int page4d_output_tensor(const page4d_pipeline* pipeline, int32_t number, page4d_tensor* tensor) {
  if (pipeline == nullptr || tensor == nullptr) return missing(pipeline == nullptr ? "pipeline" : "tensor");
  const auto& outputs = pipeline->pipeline.info().outputs;
  if (number < 0 || static_cast<size_t>(number) >= outputs.size())
    return remember(page4d::Code::kUsage, "there is no output of that number");
  const page4d::Tensor& output = outputs[static_cast<size_t>(number)];
  *tensor = {output.name.c_str(),
             static_cast<int32_t>(output.dtype),
             static_cast<int32_t>(output.shape.size()),
             {},
             output.bytes};
  std::copy(output.shape.begin(), output.shape.end(), tensor->shape);
  return PAGE4D_OK;
}

namespace {

int run_alone(page4d_pipeline* handle, const page4d_frames* frames, const page4d_outputs* outputs,
              void* stream) noexcept {
  page4d::Frames converted;
  const auto convert_all = [](const page4d_image* from, std::vector<page4d::Image>& to, const page4d::Image*& target) {
    target = from == nullptr ? nullptr : to.data();
    for (size_t i = 0; from != nullptr && i < to.size(); ++i) {
      if (!convert(from[i], to[i])) return false;
    }
    return true;
  };
  if (!convert_all(frames->images, handle->images, converted.images) ||
      !convert_all(frames->masks, handle->masks, converted.masks) ||
      !convert_all(frames->keypoints, handle->keypoints, converted.keypoints)) {
    return remember(page4d::Code::kUsage, kImageRefused);
  }
  converted.memory = frames->memory, converted.shared = frames->shared;
  page4d::Outputs targets;
  if (outputs->layer_count < 0 || outputs->layer_count > page4d::Outputs::kMostLayers)
    return remember(page4d::Code::kUsage, "layer_count is out of range");
  if (!convert(*outputs, targets)) return remember(page4d::Code::kUsage, "an output's memory is out of range");
  const page4d::Status status = handle->pipeline.run(converted, targets, stream);
  return status.ok() ? PAGE4D_OK : remember(status.code, status.message);
}

}  // namespace

int page4d_run(page4d_pipeline* handle, const page4d_frames* frames, const page4d_outputs* outputs, void* stream) {
  if (handle == nullptr || frames == nullptr || outputs == nullptr)
    return missing(handle == nullptr ? "pipeline" : frames == nullptr ? "frames" : "outputs");
  if (handle->running.test_and_set(std::memory_order_acquire)) {
    return remember(page4d::Code::kUsage,
                    "another thread runs a window of this pipeline\n  allowed: one thread at a time");
  }
  const int code = run_alone(handle, frames, outputs, stream);
  handle->running.clear(std::memory_order_release);
  return code;
}

int page4d_world_points(const page4d_pipeline* handle, const page4d_outputs* c_outputs, int32_t source, float* target,
                        size_t bytes) {
  if (handle == nullptr || c_outputs == nullptr || target == nullptr)
    return missing(handle == nullptr ? "pipeline" : c_outputs == nullptr ? "outputs" : "target");
  return guarded([&] {
    const page4d::EngineInfo& info = handle->pipeline.info();
    page4d_outputs without_layers = *c_outputs;
    without_layers.layers = nullptr;
    page4d::Outputs outputs;
    if (!convert(without_layers, outputs))
      throw page4d::Error(page4d::Code::kUsage, "an output's memory is out of range");
    const auto needed = static_cast<size_t>(info.layout.images() * info.layout.H * info.layout.W) * 3 * sizeof(float);
    if (bytes < needed) {
      throw page4d::Error(page4d::Code::kUsage, "the memory for points in the world is too small")
          .got(std::to_string(bytes) + " bytes")
          .allowed(std::to_string(needed) + " or more");
    }
    page4d::world_points(info, outputs, target,
                         enumerated(source, page4d::PointsSource::kPoints, "the source of points"));
  });
}

int page4d_rig_make(const page4d_pipeline* pipeline, const page4d_rig_options* c_options, page4d_rig** rig) {
  if (pipeline == nullptr || rig == nullptr) return missing(pipeline == nullptr ? "pipeline" : "rig");
  *rig = nullptr;
  return guarded([&] {
    page4d::RigOptions options;
    if (c_options != nullptr) {
      options.stride = c_options->stride;
      if (c_options->tolerance != 0) options.tolerance = c_options->tolerance;
      if (c_options->patience != 0) options.patience = c_options->patience;
      if (c_options->pending != 0) options.pending = c_options->pending;
      if (c_options->windows != 0) options.windows = c_options->windows;
      options.missing = enumerated(c_options->missing, page4d::Missing::kRepeat, "what happens to a missing image");
      options.frame_width = c_options->frame_width, options.frame_height = c_options->frame_height;
      options.fit = enumerated(c_options->fit, page4d::Fit::kPublishedDa3, "the fit");
    }
    *rig = new page4d_rig(pipeline->pipeline.info(), options);
  });
}

void page4d_rig_free(page4d_rig* rig) { delete rig; }

int page4d_rig_push(page4d_rig* rig, int32_t camera, const page4d_image* image, double stamp, int32_t* ready) {
  if (rig == nullptr || image == nullptr) return missing(rig == nullptr ? "rig" : "image");
  page4d::Image converted;
  if (!convert(*image, converted)) return remember(page4d::Code::kUsage, kImageRefused);
  const page4d::Pushed pushed = rig->rig.push(camera, converted, stamp);
  if (ready != nullptr) *ready = pushed.ready;
  return pushed.status.ok() ? PAGE4D_OK : remember(pushed.status.code, pushed.status.message);
}

int page4d_rig_take(page4d_rig* rig, page4d_window* window) {
  if (rig == nullptr || window == nullptr) return missing(rig == nullptr ? "rig" : "window"), 0;
  if (!rig->rig.take(rig->window)) return 0;
  for (size_t i = 0; i < rig->images.size(); ++i) rig->images[i] = convert(rig->window.images[i]);
  *window = {rig->images.data(), rig->window.stamps, rig->window.skew, rig->window.number, rig->window.shared};
  return 1;
}

void page4d_rig_release(page4d_rig* rig) {
  if (rig == nullptr) return static_cast<void>(missing("rig"));
  rig->rig.release(rig->window);
}

page4d_rig_counts page4d_rig_counts_of(const page4d_rig* rig) {
  if (rig == nullptr) return missing("rig"), page4d_rig_counts{};
  const page4d::RigCounts counts = rig->rig.counts();
  return {counts.times, counts.windows, counts.windows_dropped, counts.largest_skew, counts.mean_skew};
}

page4d_camera_counts page4d_rig_camera_counts(const page4d_rig* rig, int32_t camera) {
  if (rig == nullptr) {
    missing("rig");
    page4d_camera_counts none{};
    none.last_stamp = std::numeric_limits<double>::quiet_NaN();
    return none;
  }
  const page4d::CameraCounts counts = rig->rig.counts(camera);
  return {counts.pushed, counts.used, counts.late, counts.unmatched, counts.repeated, counts.last_stamp};
}
