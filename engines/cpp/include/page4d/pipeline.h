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

namespace page4d {

enum class Backend {
  // The folder's plans, by TensorRT, TensorRT-RTX or TensorRT's lean runtime.
  kTensorrt,
  // No network: every output is a checksum of all inputs. Everything around the engines runs, on any machine.
  kTest,
};

struct Options {
  Backend backend = Backend::kTensorrt;
  int device = 0;  // number of the GPU

  // Size of the images that come; 0: the engines' own. All images of a pipeline have one size.
  int frame_width = 0, frame_height = 0;
  Fit fit = Fit::kNone;
  // One per view, for images of the size above; only for engines with the epipolar prior (input "fundamental").
  std::vector<Camera> cameras;

  // Windows overlap: what the encoder makes of their images is kept, so that Frames::shared spares it those that the
  // next one begins with. Costs the memory of one stream's tokens, and such a window is not one CUDA graph. With
  // engines of `--encoder-images` no larger than stride times V.
  bool sliding = false;

  Files files = Files::kAll;
  bool use_graph = true;  // one CUDA graph for a window, where the engines allow
  // File of TensorRT's library, as dlopen takes it; empty: libtensorrt_rtx.so or libnvinfer.so, as the plans need.
  std::string tensorrt_library;
  // File of the attention plugins; empty: the one beside this library.
  std::string plugin_library;
  // Where plugin_library is empty, load plugins/libpage4d_plugins.so of the engine folder, if its manifest lists it. A
  // library is code that runs in this process: for folders of people whose programs you would run.
  bool load_folder_plugins = false;
};

// One window: T*V images, t slow, v fast (B clips one after the other, where the engines take several). All in the same
// kind of memory. Device images are kRgb8, in the engines' size.
struct Frames {
  const Image* images = nullptr;
  const Image* masks = nullptr;      // external masks, kMono8, 255 = dynamic, of the images' size; null: none
  const Image* keypoints = nullptr;  // heat maps, kMono8, of the images' size; only for engines that read keypoints
  const void* memory = nullptr;      // host: `Outputs::memory` of the window before; null: the learned start
  // Times that this window begins with and the one run before ended with, the same images: results are those of the
  // window computed whole.
  int64_t shared = 0;  // 0 to T - 1; only with Options::sliding, B = 1, and after a window that ran
};

// Where a result goes, in the caller's memory; data null: not wanted.
struct Output {
  void* data = nullptr;
  size_t bytes = 0;  // at least Tensor::bytes of EngineInfo
  Memory memory = Memory::kHost;
};

// By name as in EngineInfo::outputs. Types are the engines': float32, but tokens and memory, which have their
// precision.
struct Outputs {
  static constexpr int kMostLayers = 64;

  Output mask;                 // float32 [T,V,h,w], the probability that a patch is dynamic
  Output layers[kMostLayers];  // in the order of EngineInfo::kept_layers: [T,V,N,S*C]
  Output memory;               // [S,M,C]
  Output points;               // float32 [T,V,H,W,3], each pixel's point in its camera's frame, up to scale
  Output confidence;           // float32 [T,V,H,W], a logit
  Output camera;  // float64 [T,V,4,4], host only: camera to world; NaN where the engines gave no finite numbers
};

struct StageTime {
  const char* stage;
  double seconds;
};

// Used by one thread at a time. Moved, not copied.
class PAGE4D_API Pipeline {
 public:
  // Check the folder and the machine, load, allocate, run once on zeros, capture.
  // Throws Error and nothing else: kIncompatible, kMissingBackend, kOutOfMemory, kUsage; kFailure where the system or
  // the driver refuses a call.
  static Pipeline load(const std::string& folder, const Options& options = {});

  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;
  // Waits until the last window is done.
  ~Pipeline();

  const EngineInfo& info() const noexcept;
  // What computes, in words.
  const std::string& described() const noexcept;
  // Whether it keeps what a window may share: Options::sliding.
  bool slides() const noexcept;
  // What is worth a warning of how it was loaded, such as a CUDA graph that could not be made; a line each.
  const std::vector<std::string>& warnings() const noexcept;

  // Run one window. Allocates nothing, throws nothing.
  //
  // Host images are brought to the engines' size before the call returns and may be overwritten then; device images are
  // read, and outputs are written, in the order of `stream`: they are there when the stream has come so far. A call
  // waits until the images of the call before have left the staging memory. Outputs in pageable memory make the copies
  // wait, as CUDA's do. kTest ignores the stream.
  //
  // Windows come one after the other in the order of the calls, whichever streams they are put on: the stream of each
  // waits for the whole window before. What else touches the caller's memory is the caller's to order: work that makes
  // device images comes before in `stream`, and nobody reads an output, nor overwrites a device image, on another
  // stream or the host until `stream` has come so far. So does whoever gives two windows the same outputs.
  // `Frames::memory` is read by the call itself: the window that gave it is done.
  //
  // stream: a cudaStream_t or CUstream of the options' GPU that is not being captured; null: a stream of the pipeline's
  // own, ordered as CUDA's default (legacy) stream, and the call returns when all is done. Returns kUsage for images
  // that are not as `Options` say, outputs that are too small, shared times that are not there, or while another thread
  // is in this call (nothing has run then), kFailure where CUDA or TensorRT fail: the call has then waited for what was
  // put on the stream, and the next window shares nothing.
  Status run(const Frames& frames, const Outputs& outputs, void* stream = nullptr) noexcept;

  // Seconds of each stage in the last window; waits until it is done. As many as EngineInfo::stages.
  const StageTime* times() noexcept;

 private:
  class Impl;
  explicit Pipeline(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Host memory for all outputs of a folder: the simple way to call Pipeline::run. Moved, not copied: `outputs` points
// into it.
class PAGE4D_API Results {
 public:
  // Throws Error: kOutOfMemory; kUsage for more layers than Outputs has.
  explicit Results(const EngineInfo& info);
  // The memory stays where it is, what it was moved from has no outputs.
  Results(Results&& other) noexcept;
  Results& operator=(Results&& other) noexcept;
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
  ~Results();

  // To be given to Pipeline::run.
  const Outputs& outputs() const noexcept { return outputs_; }
  // The output's bytes, by its name in EngineInfo::outputs; camera is float64 [T,V,4,4]. Null where there is none.
  const void* data(const std::string& name) const noexcept;
  // Null where the engines have no such output.
  const float* mask() const noexcept { return static_cast<const float*>(outputs_.mask.data); }
  const double* camera() const noexcept { return static_cast<const double*>(outputs_.camera.data); }

 private:
  void allocate(const EngineInfo& info);

  EngineInfo info_;
  std::vector<std::vector<unsigned char>> memory_;
  Outputs outputs_;
};

}  // namespace page4d
