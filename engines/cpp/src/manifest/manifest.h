// The manifest of an engine folder, as far as a runtime needs it. Mirrors page4d/manifest.py.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "page4d/engine_info.h"
#include "page4d/layout.h"

namespace page4d {

inline constexpr char kConstants[] = "onnx/constants.safetensors";
// Values of pose_direction and unit.
inline constexpr char kWorldToCamera[] = "world_to_camera", kCameraToWorld[] = "camera_to_world", kMetres[] = "metres";

// Elements of a tensor of this shape.
int64_t count_of(const std::vector<int64_t>& shape);

// A stage's input or output.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kFloat32;
  std::string suffix;  // of its name in the engine, in which no output may have the name of an input

  std::string binding() const { return name + suffix; }  // its name in the engine
  int64_t count() const { return count_of(shape); }
};

struct Stage {
  std::string name, kind;
  std::optional<int64_t> layer;
  std::vector<TensorSpec> inputs, outputs;
  int64_t weight_bytes = 0, flop = 0, largest = 0;
  int64_t calls = 1;  // per window; more than one for the encoder, which takes the images in chunks
  std::optional<std::string> file;
  // The graphs that ONNX Runtime runs on a CPU: on any, and on those with exact products of unsigned by signed bytes.
  // Empty: the folder has none.
  std::string cpu, cpu_signed;
  double relative_l2 = 0;  // the largest that the exporter measured

  const TensorSpec* input(const std::string& name) const;
  const TensorSpec* output(const std::string& name) const;
};

// An output [T,V,N,S*C]: the tokens of S stages, side by side.
struct KeptLayer {
  int64_t layer = 0;
  std::vector<std::string> stages;
  int64_t streams = 1;
};

struct Plans {
  std::string library, version;
  std::vector<std::string> chips;
  std::optional<std::string> kernels;        // sha256 of the source of the plugins' kernels
  std::map<std::string, std::string> files;  // by stage
  int64_t least_chip = 80;                   // if chips is empty: compute capability, times ten, of the oldest GPU
};

// The golden clip, with which every machine can check its engines.
struct Golden {
  std::string inputs;
  std::optional<std::string> expected;
  std::map<std::string, double> tolerance;  // by <stage>/<output>
};

// The value of an option of the model, of any type.
struct ModelValue {
  std::string shown = "nothing";
  std::optional<int64_t> number;
  std::optional<std::string> string;
  std::optional<std::vector<std::string>> strings;
  std::optional<std::vector<int64_t>> integers;
};

struct Manifest {
  std::string page4d, weights, licence, precision, attention = "auto";
  std::string model;                          // as JSON
  std::map<std::string, ModelValue> options;  // of the model: those that decide its chain of stages
  int64_t width = 0;                          // C
  Layout layout;
  int64_t encoder_images = 1;
  std::vector<Stage> stages;
  std::vector<KeptLayer> keep;
  // "camera" or "world"; nothing: without points, or in older folders, which are Pi3's
  std::optional<std::string> points_frame;
  // of a camera's nine numbers; nothing: world to camera, or there are no such numbers
  std::optional<std::string> pose_direction;
  // of lengths: "metres"; nothing: one of each window's own
  std::optional<std::string> unit;
  std::optional<Plans> plans;
  std::optional<Golden> golden;
  std::map<std::string, std::string> files;  // sha256 by path relative to the folder

  DType dtype() const;  // of tokens, memory and weights
  bool makes(const std::string& tensor) const;
  bool reads(const std::string& tensor) const;
  // Whether depth is in metres once focal lengths are known.
  bool takes_focal_lengths() const { return unit && makes("sky"); }
  // Which inputs of the stages are the model's own, and lie in kConstants: "special", "memory".
  std::vector<std::string> constants() const;
  // The first input or output of that name; null if there is none.
  const TensorSpec* spec(const std::string& tensor) const;
};

}  // namespace page4d
