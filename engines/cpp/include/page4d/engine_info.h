// The contents of an engine folder: what a program needs to know before it loads it. Needs no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/image.h"
#include "page4d/layout.h"

namespace page4d {

enum class DType { kUint8, kInt32, kFloat32, kFloat16, kBfloat16, kFloat64 };

PAGE4D_API size_t bytes_of(DType dtype);
// As in the manifest: "float16".
PAGE4D_API const char* name_of(DType dtype);

// The frame that points are in.
enum class PointsFrame {
  kCamera,  // each pixel's own camera: Pi3, Pi3X
  kWorld,   // one frame for all images: VGGT, PAGE-4D
};

// A unit of length that the engines' results are in.
enum class Unit {
  kMetres,   // approximately: Pi3X, and Depth Anything 3 METRIC if focal lengths are known
  kCameras,  // that of Options::cameras: engines for known cameras
};

// An input or output of the engines.
struct Tensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  size_t bytes = 0;
};

struct StageInfo {
  std::string name, kind;
  int64_t calls = 1;  // per window
  int64_t flop = 0;   // of one call; a multiplication and an addition count as two
  int64_t weight_bytes = 0;
  double relative_l2 = 0;  // of its worst output, measured by the exporter; 0: not measured
};

struct PlansInfo {
  std::string library, version;    // "tensorrt" or "rtx"; only this version loads the plans
  std::vector<std::string> chips;  // GPU architectures, "sm_<compute capability times ten>"; empty: sm_80 and newer
  bool plugins = false;            // whether the plans need the attention plugins
};

// Which files of a folder are compared with their hashes.
enum class Files {
  kAll,   // every file in the manifest, as Python does
  kUsed,  // only files that are loaded: for folders that are deployed without ONNX files
};

struct EngineInfo {
  std::string exporter;  // version of page4d that wrote the folder
  // Where the weights come from, as text; contains "seeded" for weights that were never trained.
  std::string weights;
  std::string licence;                  // of the weights, in words; empty if none were loaded
  std::string precision;                // "float32", "float16" or "bfloat16": of tokens, memory and weights
  std::string model;                    // options of the network, as JSON
  Fit published_fit = Fit::kPublished;  // what Fit::kPublished stands for: that, or kPublishedDa3
  Layout layout;
  int64_t encoder_images = 1;
  std::vector<StageInfo> stages;
  // "images", and those of "cameras", "mask_ext", "keypoints", "fundamental", "memory", "present" that the engines
  // read. "cameras" and "fundamental" are computed from Options::cameras; the others are members of Frames.
  std::vector<Tensor> inputs;
  // Those of "mask", "layers.<i>", "memory", "points", "points_confidence", "confidence", "depth", "depth_confidence",
  // "camera", "intrinsics", "metric", "sky" that exist: see Outputs. camera and intrinsics are float64.
  std::vector<Tensor> outputs;
  std::optional<PointsFrame> points_frame;  // of the output "points"; nothing if there is none
  std::optional<Unit> unit;                 // nothing: each window has a scale of its own
  // Whether images may be absent: Frames::present, Missing::kAbsent. Of engines exported with --absent-views.
  bool takes_present = false;
  std::vector<int> kept_layers;
  std::optional<PlansInfo> plans;
  size_t buffer_bytes = 0;  // allocated once, in addition to weights and the engines' scratch memory

  // Null if there is none.
  PAGE4D_API const Tensor* input(const std::string& name) const;
  PAGE4D_API const Tensor* output(const std::string& name) const;
};

// Reads manifest.json and compares files with their hashes. Any thread.
// Throws Error and nothing else: kIncompatible if there is no manifest, or a file is missing, changed or outside the
// folder.
PAGE4D_API EngineInfo inspect(const std::string& folder, Files files = Files::kAll);

}  // namespace page4d
