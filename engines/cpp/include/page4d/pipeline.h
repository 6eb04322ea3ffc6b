// An engine folder, loaded: windows of [T,V] images in; masks, tokens, points and poses out.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "page4d/engine_info.h"
#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/image.h"
#include "page4d/log.h"
#include "page4d/version.h"

namespace page4d {

enum class Backend {
  // The folder's TensorRT plans where there are some and they run on this machine, else ONNX Runtime. `warnings` say
  // why plans were not taken.
  kAuto,
  // The folder's TensorRT plans, by TensorRT, TensorRT-RTX or TensorRT's lean runtime.
  kTensorrt,
  // The folder's graphs for a CPU, by ONNX Runtime; 16-bit engines compute in float32, and their tokens are float32.
  // Runs on any machine. Pipeline::run then allocates what ONNX Runtime allocates.
  kOnnxruntime,
  // No network: every output is a checksum of all inputs. Everything else runs as with engines, on any machine.
  kTest,
  // float32 engines on a GPU without TensorRT, by ONNX Runtime's CUDA provider. Never chosen by kAuto.
  kOnnxruntimeCuda,
};

struct Options {
  Backend backend = Backend::kAuto;
  int device = 0;  // number of the GPU

  // Size of the caller's images; 0: the engines' size. All images of a pipeline have one size.
  int frame_width = 0, frame_height = 0;
  Fit fit = Fit::kNone;
  // One per view, for images of the size above; only for engines with the epipolar prior (input "fundamental") or for
  // known cameras (input "cameras"), whose results are in the frame and scale of these.
  std::vector<Camera> cameras;

  // Windows overlap: encoded images are kept, so that images of Frames::shared timesteps are not encoded again. Takes
  // memory for the tokens of one stream; a window with shared timesteps does not run as one CUDA graph. For engines
  // whose `--encoder-images` is at most stride times V.
  bool sliding = false;

  Files files = Files::kAll;
  bool use_graph = true;  // one CUDA graph for a window, if the engines allow it
  // File of TensorRT's library, as for dlopen; empty: libtensorrt_rtx.so or libnvinfer.so, whichever the plans need.
  std::string tensorrt_library;
  // File of ONNX Runtime's library, as for dlopen; empty: libonnxruntime.so, else the one in a Python environment
  // ($VIRTUAL_ENV, $CONDA_PREFIX, ~/.local, the system's). A process has one, which the first pipeline on ONNX Runtime
  // opens; a later pipeline that asks for another gets a warning.
  std::string onnxruntime_library;
  int threads = 0;  // of ONNX Runtime, for all pipelines of the process, likewise; 0: every CPU
  // File of the attention plugins; empty: the one beside this library.
  std::string plugin_library;
  // If plugin_library is empty: load plugins/libpage4d_plugins.so of the engine folder, if its manifest lists it. A
  // library is code that runs in this process: only for folders from authors whose programs you would run.
  bool load_folder_plugins = false;

  // Messages of this pipeline: what computes, the warnings of load, and what TensorRT (from information on) and ONNX
  // Runtime (from warnings on) say. They know one log per process: what they say on threads of their own goes to every
  // pipeline that has a log. Called from load on, until the pipeline is destroyed. Empty: nothing is printed.
  LogFunction log;
};

// One window: T*V images, t slow, v fast (B clips one after the other for engines of several clips). All are in host
// memory, or all in device memory. Device images are kRgb8, in the engines' size.
struct Frames {
  const Image* images = nullptr;
  const Image* masks = nullptr;      // external masks, kMono8, 255 = dynamic, of the images' size; null: none
  const Image* keypoints = nullptr;  // heat maps, kMono8, of the images' size; if and only if the engines read them
  const void* memory = nullptr;      // host: `Outputs::memory` of the window before; null: the learned initial memory
  // Timesteps at the start of this window that were at the end of the window before, with the same images. Results
  // equal those of a window without shared timesteps.
  int64_t shared = 0;  // 0 to T - 1; only with Options::sliding, B = 1, and after a window that ran
  // One byte per image, in the order of the images: 1, or 0 for an image that is absent, whose pixels are not read.
  // Null: all are there. At least one of each clip must be. A 0 only for engines that take it:
  // EngineInfo::takes_present. Every float result of an absent image is NaN; its tokens are finite, and mean nothing.
  const uint8_t* present = nullptr;
};

// Where a result is written, in the caller's memory; data null: nowhere.
struct Output {
  void* data = nullptr;
  size_t bytes = 0;  // at least Tensor::bytes of EngineInfo
  Memory memory = Memory::kHost;
};

// Names as in EngineInfo::outputs. float32, except tokens (layers) and memory, which have the engines' precision.
struct Outputs {
  static constexpr int kMostLayers = 64;

  Output mask;                 // float32 [T,V,h,w], the probability that a patch is dynamic
  Output layers[kMostLayers];  // in the order of EngineInfo::kept_layers: [T,V,N,S*C]
  Output memory;               // [S,M,C]
  // float32 [T,V,H,W,3], each pixel's point, in EngineInfo::points_frame and unit, or up to scale; host only with
  // metric
  Output points;
  Output confidence;         // float32 [T,V,H,W], a logit (Pi3, Pi3X)
  Output camera;             // float64 [T,V,4,4], host only: camera to world; NaN if the engines gave no finite pose
  Output points_confidence;  // float32 [T,V,H,W], above 1, no probability (VGGT, PAGE-4D), as the next but one
  // float32 [T,V,H,W], z in the pixel's camera, up to scale; with known cameras in their unit, and host only
  Output depth;
  Output depth_confidence;  // float32 [T,V,H,W]
  // float64 [T,V,3,3], host only, in pixels of the engines' image; a focal length is NaN if the engines gave none
  Output intrinsics;
  Output metric;  // float32 [B], metres per unit of the engines: points and camera are multiplied by it (Pi3X)
  Output sky;     // float32 [T,V,H,W], from 0.3 on the pixel is sky (Depth Anything 3 MONO, METRIC)
};

struct StageTime {
  const char* stage = "";  // its name in EngineInfo::stages; valid as long as the pipeline
  double seconds = 0;
};

// `run` and `times` are called by one thread at a time, another one each time if need be; the const members by any, at
// any time. Moved, not copied, while no thread calls it; a pipeline that was moved from can be destroyed and assigned
// to, no more. References that it returns are valid as long as it exists, and the same after a move.
class PAGE4D_API Pipeline {
 public:
  // Checks the folder and the machine, loads, allocates, runs once on zeros and captures the CUDA graph.
  // Throws Error and nothing else: kIncompatible, kMissingBackend, kOutOfMemory, kUsage; kFailure if the system or the
  // driver refuses a call.
  static Pipeline load(const std::string& folder, const Options& options = {});

  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;
  // Waits until the last window is done.
  ~Pipeline();

  const EngineInfo& info() const noexcept;
  // What computes, as text.
  const std::string& described() const noexcept;
  // Whether windows may share timesteps: Options::sliding.
  bool slides() const noexcept;
  // Warnings of load, a line each: why there is no CUDA graph, why plans were not taken, options without effect.
  const std::vector<std::string>& warnings() const noexcept;

  // Runs one window. Allocates nothing, throws nothing.
  //
  // Host images are fitted before the call returns, and may be overwritten then. Device images are read and outputs are
  // written in the order of `stream`: outputs are ready when the stream has reached that point. A call waits until the
  // images of the call before have left the staging memory. Outputs in pageable memory make the copies wait, as CUDA's
  // do. kTest ignores the stream.
  //
  // Windows run one after the other in the order of the calls, on whichever streams: the stream of each waits for the
  // whole window before. The caller orders every other access to the caller's memory: work that writes device images
  // comes earlier in `stream`; an output is read, and a device image overwritten, only when `stream` has reached that
  // point. The same holds for two windows with the same outputs. `Frames::memory` is read by the call itself: the
  // window that wrote it must be done.
  //
  // stream: a cudaStream_t or CUstream of the options' GPU that is not being captured. Null: a stream of the pipeline,
  // ordered like CUDA's default (legacy) stream; the call returns when everything is done.
  //
  // kUsage: images that are not as `Options` say, outputs that are too small, shared timesteps without a window before,
  // or another thread is in this call; nothing has run then. kFailure: CUDA or TensorRT failed; the call has waited for
  // what was put on the stream, and the next window cannot share timesteps.
  Status run(const Frames& frames, const Outputs& outputs, void* stream = nullptr) noexcept;

  // Seconds of each stage in the last window, as many as EngineInfo::stages and in their order; 0 before the first
  // window. Waits until the window is done. In the pipeline's memory: the next call overwrites it.
  const StageTime* times() noexcept;

 private:
  class Impl;
  explicit Pipeline(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Host memory for all outputs: the simple way to call Pipeline::run. Moved, not copied: `outputs` points into it. Any
// thread reads it, while no window writes to it.
class PAGE4D_API Results {
 public:
  // Throws Error: kOutOfMemory; kUsage for more layers than Outputs has.
  explicit Results(const EngineInfo& info);
  // The memory stays where it is; the moved-from object has no outputs.
  Results(Results&& other) noexcept;
  Results& operator=(Results&& other) noexcept;
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
  ~Results();

  // For Pipeline::run.
  const Outputs& outputs() const noexcept { return outputs_; }
  // The bytes of an output, by its name in EngineInfo::outputs. Null if there is none.
  const void* data(const std::string& name) const noexcept;
  // As in Outputs. Null if the engines have no such output.
  const float* mask() const noexcept { return floats(outputs_.mask); }
  const float* points() const noexcept { return floats(outputs_.points); }
  const float* points_confidence() const noexcept { return floats(outputs_.points_confidence); }
  const float* confidence() const noexcept { return floats(outputs_.confidence); }
  const float* depth() const noexcept { return floats(outputs_.depth); }
  const float* depth_confidence() const noexcept { return floats(outputs_.depth_confidence); }
  const float* metric() const noexcept { return floats(outputs_.metric); }
  const float* sky() const noexcept { return floats(outputs_.sky); }
  const double* camera() const noexcept { return static_cast<const double*>(outputs_.camera.data); }
  const double* intrinsics() const noexcept { return static_cast<const double*>(outputs_.intrinsics.data); }

 private:
  static const float* floats(const Output& output) noexcept { return static_cast<const float*>(output.data); }
  void allocate(const EngineInfo& info);

  EngineInfo info_;
  std::vector<std::vector<unsigned char>> memory_;
  Outputs outputs_;
};

}  // namespace page4d
