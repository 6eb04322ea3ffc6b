// Pipelines in the C interface.
#include "c_api/c_pipeline.h"

#include <algorithm>
#include <string>

#include "c_api/c_convert.h"
#include "c_api/c_error.h"
#include "page4d/geometry.h"

using namespace page4d;

namespace {

constexpr size_t kFirstOptions = PAGE4D_SIZE_UP_TO(page4d_options, log_context);
constexpr size_t kFirstFrames = PAGE4D_SIZE_UP_TO(page4d_frames, present);
constexpr size_t kFirstOutputs = PAGE4D_SIZE_UP_TO(page4d_outputs, layer_count);
constexpr size_t kFirstLayout = PAGE4D_SIZE_UP_TO(page4d_layout, registers);
constexpr size_t kFirstTensor = PAGE4D_SIZE_UP_TO(page4d_tensor, bytes);
// a later member would lie in bytes that older programs never set
static_assert(kFirstOptions == sizeof(page4d_options) && kFirstFrames == sizeof(page4d_frames));
static_assert(kFirstOutputs == sizeof(page4d_outputs) && kFirstLayout == sizeof(page4d_layout));
static_assert(kFirstTensor == sizeof(page4d_tensor));

constexpr char kOutputRefused[] = "an output's memory is out of range, or its reserved bytes are not zero";

// False: kOutputRefused.
bool convert(const page4d_output& from, Output& to) noexcept {
  if (from.memory < 0 || from.memory > PAGE4D_DEVICE || from.reserved != 0) return false;
  to = {from.data, from.bytes, static_cast<Memory>(from.memory)};
  return true;
}

// False: kOutputRefused.
bool convert(const page4d_outputs& from, Outputs& to) noexcept {
  bool fits = convert(from.mask, to.mask) && convert(from.memory, to.memory) && convert(from.points, to.points) &&
              convert(from.confidence, to.confidence) && convert(from.camera, to.camera) &&
              convert(from.points_confidence, to.points_confidence) && convert(from.depth, to.depth) &&
              convert(from.depth_confidence, to.depth_confidence) && convert(from.intrinsics, to.intrinsics) &&
              convert(from.metric, to.metric) && convert(from.sky, to.sky);
  for (int64_t i = 0; from.layers != nullptr && i < from.layer_count; ++i)
    fits = fits && convert(from.layers[i], to.layers[i]);
  return fits;
}

// False, with the error kept, if the caller's struct cannot be used.
bool put_layout(const Layout& layout, page4d_layout* to) noexcept {
  const page4d_layout from{0, layout.T, layout.V, layout.H, layout.W, layout.B, layout.registers};
  return write_struct(from, kFirstLayout, "page4d_layout", to) == PAGE4D_OK;
}

// The tensor of this number. what: "input" or "output".
int put_tensor(const std::vector<Tensor>& tensors, const char* what, int32_t number, page4d_tensor* to) noexcept {
  if (number < 0 || static_cast<size_t>(number) >= tensors.size()) {
    const std::string message = std::string("there is no ") + what + " of that number";
    return remember(Code::kUsage, message.c_str());
  }
  const Tensor& tensor = tensors[static_cast<size_t>(number)];
  page4d_tensor from{};
  from.name = tensor.name.c_str();
  from.dtype = static_cast<int32_t>(tensor.dtype);
  from.rank = static_cast<int32_t>(tensor.shape.size());
  std::copy(tensor.shape.begin(), tensor.shape.end(), from.shape);
  from.bytes = tensor.bytes;
  return write_struct(from, kFirstTensor, "page4d_tensor", to);
}

Options convert(const page4d_options& from) {
  Options to;
  to.backend = enumerated(from.backend, Backend::kOnnxruntimeCuda, "the backend");
  to.device = from.device;
  to.frame_width = from.frame_width, to.frame_height = from.frame_height;
  to.fit = enumerated(from.fit, Fit::kPublishedDa3, "the fit");
  to.files = from.used_files_only != 0 ? Files::kUsed : Files::kAll;
  to.use_graph = from.no_graph == 0;
  if (from.camera_count < 0 || (from.cameras == nullptr && from.camera_count > 0)) {
    throw Error(Code::kUsage, "there are not as many cameras as camera_count says")
        .got(std::to_string(from.camera_count));
  }
  for (int64_t i = 0; i < from.camera_count; ++i) {
    Camera camera;
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
  if (from.log != nullptr) {
    to.log = [log = from.log, context = from.log_context](LogLevel level, const char* message) {
      log(context, static_cast<int32_t>(level), message);
    };
  }
  return to;
}

}  // namespace

int page4d_inspect(const char* folder, page4d_layout* layout, size_t* buffer_bytes) {
  if (folder == nullptr) return refuse_null("folder");
  if (layout != nullptr && !put_layout({}, layout)) return PAGE4D_USAGE;  // before gigabytes are hashed
  return guarded([&] {
    const EngineInfo info = inspect(folder);
    if (layout != nullptr) put_layout(info.layout, layout);
    if (buffer_bytes != nullptr) *buffer_bytes = info.buffer_bytes;
  });
}

int page4d_load(const char* folder, const page4d_options* options, page4d_pipeline** pipeline) {
  if (folder == nullptr || pipeline == nullptr) return refuse_null(folder == nullptr ? "folder" : "pipeline");
  *pipeline = nullptr;
  page4d_options all{};
  if (options != nullptr) {
    if (const int code = read_struct(options, kFirstOptions, "page4d_options", all)) return code;
  }
  return guarded([&] { *pipeline = new page4d_pipeline(Pipeline::load(folder, convert(all))); });
}

void page4d_free(page4d_pipeline* pipeline) { delete pipeline; }

int page4d_layout_of(const page4d_pipeline* pipeline, page4d_layout* layout) {
  if (pipeline == nullptr || layout == nullptr) return refuse_null(pipeline == nullptr ? "pipeline" : "layout");
  return put_layout(pipeline->pipeline.info().layout, layout) ? PAGE4D_OK : PAGE4D_USAGE;
}

const char* page4d_described(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), nullptr;
  return pipeline->pipeline.described().c_str();
}

const char* page4d_unit(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), nullptr;
  const std::optional<Unit>& unit = pipeline->pipeline.info().unit;
  if (!unit) return nullptr;
  return *unit == Unit::kMetres ? "metres" : "cameras";
}

int page4d_takes_present(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), 0;
  return pipeline->pipeline.info().takes_present ? 1 : 0;
}

int32_t page4d_warning_count(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), 0;
  return static_cast<int32_t>(pipeline->pipeline.warnings().size());
}

const char* page4d_warning(const page4d_pipeline* pipeline, int32_t number) {
  if (number < 0 || number >= page4d_warning_count(pipeline)) return nullptr;
  return pipeline->pipeline.warnings()[static_cast<size_t>(number)].c_str();
}

int32_t page4d_input_count(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), 0;
  return static_cast<int32_t>(pipeline->pipeline.info().inputs.size());
}

int page4d_input_tensor(const page4d_pipeline* pipeline, int32_t number, page4d_tensor* tensor) {
  if (pipeline == nullptr || tensor == nullptr) return refuse_null(pipeline == nullptr ? "pipeline" : "tensor");
  return put_tensor(pipeline->pipeline.info().inputs, "input", number, tensor);
}

int32_t page4d_output_count(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), 0;
  return static_cast<int32_t>(pipeline->pipeline.info().outputs.size());
}

int page4d_output_tensor(const page4d_pipeline* pipeline, int32_t number, page4d_tensor* tensor) {
  if (pipeline == nullptr || tensor == nullptr) return refuse_null(pipeline == nullptr ? "pipeline" : "tensor");
  return put_tensor(pipeline->pipeline.info().outputs, "output", number, tensor);
}

int32_t page4d_stage_count(const page4d_pipeline* pipeline) {
  if (pipeline == nullptr) return refuse_null("pipeline"), 0;
  return static_cast<int32_t>(pipeline->pipeline.info().stages.size());
}

namespace {

constexpr char kOtherThread[] = "another thread runs a window of this pipeline\n  allowed: one thread at a time";

// Whether this thread alone uses the pipeline from now on, until it clears `running`.
bool enter(page4d_pipeline* handle) noexcept { return !handle->running.test_and_set(std::memory_order_acquire); }
void leave(page4d_pipeline* handle) noexcept { handle->running.clear(std::memory_order_release); }

int run_alone(page4d_pipeline* handle, const page4d_frames* caller_frames, const page4d_outputs* caller_outputs,
              void* stream) noexcept {
  page4d_frames frames;
  page4d_outputs outputs;
  if (const int code = read_struct(caller_frames, kFirstFrames, "page4d_frames", frames)) return code;
  if (const int code = read_struct(caller_outputs, kFirstOutputs, "page4d_outputs", outputs)) return code;
  Frames converted;
  const auto convert_all = [](const page4d_image* from, std::vector<Image>& to, const Image*& target) {
    target = from == nullptr ? nullptr : to.data();
    for (size_t i = 0; from != nullptr && i < to.size(); ++i) {
      if (!convert(from[i], to[i])) return false;
    }
    return true;
  };
  if (!convert_all(frames.images, handle->images, converted.images) ||
      !convert_all(frames.masks, handle->masks, converted.masks) ||
      !convert_all(frames.keypoints, handle->keypoints, converted.keypoints)) {
    return remember(Code::kUsage, kImageRefused);
  }
  converted.memory = frames.memory, converted.shared = frames.shared, converted.present = frames.present;
  Outputs targets;
  if (outputs.layer_count < 0 || outputs.layer_count > Outputs::kMostLayers)
    return remember(Code::kUsage, "layer_count is out of range");
  if (!convert(outputs, targets)) return remember(Code::kUsage, kOutputRefused);
  const Status status = handle->pipeline.run(converted, targets, stream);
  return status.ok() ? PAGE4D_OK : remember(status.code, status.message);
}

}  // namespace

int page4d_run(page4d_pipeline* handle, const page4d_frames* frames, const page4d_outputs* outputs, void* stream) {
  if (handle == nullptr || frames == nullptr || outputs == nullptr)
    return refuse_null(handle == nullptr ? "pipeline" : frames == nullptr ? "frames" : "outputs");
  if (!enter(handle)) return remember(Code::kUsage, kOtherThread);
  const int code = run_alone(handle, frames, outputs, stream);
  leave(handle);
  return code;
}

int page4d_stage_time(page4d_pipeline* handle, int32_t number, const char** name, double* seconds) {
  if (handle == nullptr) return refuse_null("pipeline");
  if (number < 0 || number >= page4d_stage_count(handle))
    return remember(Code::kUsage, "there is no stage of that number");
  if (!enter(handle)) return remember(Code::kUsage, kOtherThread);
  const StageTime time = handle->pipeline.times()[number];
  leave(handle);
  if (name != nullptr) *name = time.stage;
  if (seconds != nullptr) *seconds = time.seconds;
  return PAGE4D_OK;
}

int page4d_world_points(const page4d_pipeline* handle, const page4d_outputs* c_outputs, int32_t source, float* target,
                        size_t bytes) {
  if (handle == nullptr || c_outputs == nullptr || target == nullptr)
    return refuse_null(handle == nullptr ? "pipeline" : c_outputs == nullptr ? "outputs" : "target");
  page4d_outputs all;
  if (const int code = read_struct(c_outputs, kFirstOutputs, "page4d_outputs", all)) return code;
  all.layers = nullptr;  // no points are made from them
  return guarded([&] {
    const EngineInfo& info = handle->pipeline.info();
    Outputs outputs;
    if (!convert(all, outputs)) throw Error(Code::kUsage, kOutputRefused);
    const auto needed = static_cast<size_t>(info.layout.images() * info.layout.H * info.layout.W) * 3 * sizeof(float);
    if (bytes < needed) {
      throw Error(Code::kUsage, "the memory for points in the world is too small")
          .got(std::to_string(bytes) + " bytes")
          .allowed(std::to_string(needed) + " or more");
    }
    page4d::world_points(info, outputs, target, enumerated(source, PointsSource::kPoints, "the source of points"));
  });
}
