// What an engine folder says of itself: everything a program needs to know before it loads one, without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/layout.h"

namespace page4d {

enum class DType { kUint8, kInt32, kFloat32, kFloat16, kBfloat16, kFloat64 };

PAGE4D_API size_t bytes_of(DType dtype);
// As the manifest has it: "float16".
PAGE4D_API const char* name_of(DType dtype);

// An input or output of a whole folder.
struct Tensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  size_t bytes = 0;
};

struct StageInfo {
  std::string name, kind;
  int64_t calls = 1;  // that a window takes
  int64_t flop = 0;   // of one call; multiply and add counted as two
  int64_t weight_bytes = 0;
  double relative_l2 = 0;  // the worst of its outputs, as measured by the exporter; 0 where nothing was measured
};

struct PlansInfo {
  std::string library, version;    // "tensorrt" or "rtx"; only this very version loads them
  std::vector<std::string> chips;  // "sm_<compute capability times ten>"; empty: sm_80 and newer
  bool plugins = false;            // whether they need the attention plugins
};

// Which files of a folder are held against their hashes.
enum class Files {
  kAll,   // every file that the manifest lists, as Python does
  kUsed,  // those that are loaded: for folders that were deployed without their ONNX files
};

struct EngineInfo {
  std::string exporter;  // version of page4d that wrote the folder
  // where they come from, in words; weights that were never trained have the word "seeded" in them
  std::string weights;
  std::string precision;  // "float32", "float16" or "bfloat16": of tokens, memory and weights
  std::string model;      // the network's options, as JSON
  Layout layout;
  int64_t encoder_images = 1;
  std::vector<StageInfo> stages;
  // "images", and what else the engines read: "mask_ext", "keypoints", "fundamental", "memory"
  std::vector<Tensor> inputs;
  // "mask", "layers.<i>", "memory", "points", "confidence", "camera": as far as there are; camera is float64 [T,V,4,4]
  std::vector<Tensor> outputs;
  std::vector<int> kept_layers;
  std::optional<PlansInfo> plans;
  size_t buffer_bytes = 0;  // allocated once, beside weights and the engines' scratch

  // Null where there is none.
  PAGE4D_API const Tensor* input(const std::string& name) const;
  PAGE4D_API const Tensor* output(const std::string& name) const;
};

// Reads manifest.json and holds every file against its hash.
// Throws Error and nothing else: kIncompatible where there is no manifest, or a file is missing, changed or outside the
// folder.
PAGE4D_API EngineInfo inspect(const std::string& folder, Files files = Files::kAll);

}  // namespace page4d
