// What the checks of an ONNX file look at: operators, constants and where they lie, loops, inputs and outputs. Mirrors
// page4d_engines/stage_files/onnx_file.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnxruntime/protobuf_fields.h"

namespace page4d {

// A constant without its values.
struct OnnxTensor {
  std::string name;
  int64_t dtype = 0;  // as ONNX numbers types
  std::vector<int64_t> dims;
  // Keys and values that say where in another file it lies; nothing: it lies in this one.
  std::optional<std::vector<std::pair<std::string, std::string>>> place;
};

// An input or output.
struct OnnxValue {
  std::string name;
  int64_t dtype = 0;           // 0: no tensor
  std::vector<int64_t> shape;  // -1: a size that is not fixed
};

struct OnnxGraph;

struct OnnxAttribute {
  std::string name;
  std::optional<int64_t> integer;  // nothing: it is something else, or a function's caller gives it
  std::vector<OnnxTensor> tensors;
  std::vector<OnnxGraph> graphs;
};

struct OnnxNode {
  std::string op_type, domain;
  std::vector<std::string> inputs, outputs;
  std::vector<OnnxAttribute> attributes;

  bool has_graphs() const;
};

// The file's graph, or one inside a node.
struct OnnxGraph {
  std::vector<OnnxNode> nodes;
  std::vector<OnnxTensor> initializers;
  std::vector<OnnxValue> inputs, outputs;
  bool has_sparse = false;  // initializers

  // Names of values that no node makes.
  std::vector<std::string> source_names() const;
};

struct OnnxFunction {
  std::string name, domain;
  std::vector<std::string> inputs;  // their names
  std::vector<OnnxNode> nodes;
  std::vector<OnnxAttribute> defaults;
};

struct OnnxFile {
  OnnxGraph graph;
  std::vector<OnnxFunction> functions;
  bool has_training = false;  // parts for training

  // Throws Damaged.
  static OnnxFile parse(std::string_view content);
};

}  // namespace page4d
