#include "onnxruntime/onnx_file.h"

#include <algorithm>

#include "text.h"

namespace page4d {
namespace {

const Kinds kModelFields({1, 8, 2, 3, 4, 5, 6, 7, 14, 20, 25, 26}, "nMmmmnmmMMMM");
const Kinds kGraphFields({1, 2, 5, 15, 10, 11, 12, 13, 14, 16}, "MmMMmMMMMM");
const Kinds kFunctionFields({1, 4, 5, 6, 11, 7, 8, 9, 10, 13, 12, 14}, "mMMMMMmMmmMM");
const Kinds kNodeFields({1, 2, 3, 4, 7, 8, 5, 6, 9, 10}, "MMmmmmMmMM");
const Kinds kAttributeFields({1, 21, 13, 20, 2, 3, 4, 5, 6, 22, 14, 7, 8, 9, 10, 11, 23, 15}, "mmmnfnmmmmmFNMMMMM");
const Kinds kTensorFields({1, 2, 3, 4, 5, 6, 7, 8, 12, 9, 13, 14, 10, 11, 16}, "NnmFNMNmmmMnDNM");
const Kinds kSparseFields({1, 2, 3}, "mmN");
const Kinds kValueFields({1, 2, 3, 4}, "mmmM");
const Kinds kTypeFields({1, 4, 5, 9, 8, 7, 6}, "mmmmmmm");
const Kinds kTensorTypeFields({1, 2}, "nm");
const Kinds kShapeFields({1}, "M");
const Kinds kDimensionFields({1, 2, 3}, "nmm");
const Kinds kEntryFields({1, 2}, "mm");

constexpr int kDeepestGraphs = 8;              // graphs inside graphs
constexpr int64_t kExternal = 1;               // of TensorProto.DataLocation
constexpr int64_t kInt = 2;                    // of AttributeProto.AttributeType
constexpr int kNoTensors[] = {4, 5, 7, 8, 9};  // fields of TypeProto

OnnxGraph graph_of(std::string_view bytes, int depth);

OnnxTensor tensor_of(std::string_view bytes) {
  const Message message(bytes, kTensorFields);
  const int64_t location = message.number(14);
  if (location != 0 && location != kExternal) throw Damaged(text("a tensor in location ", location));
  OnnxTensor tensor{message.text(8), message.number(2), message.numbers(1), std::nullopt};
  std::vector<std::pair<std::string, std::string>> place;
  for (std::string_view part : message.parts(13)) {
    const Message entry(part, kEntryFields);
    if (location == kExternal) place.emplace_back(entry.text(1), entry.text(2));
  }
  if (location == kExternal) tensor.place = std::move(place);
  return tensor;
}

int64_t side_of(std::string_view bytes) {
  const Message message(bytes, kDimensionFields);
  return message.has(1) && !message.has(2) ? std::max<int64_t>(message.number(1), -1) : -1;
}

OnnxValue value_of(std::string_view bytes) {
  const Message message(bytes, kValueFields);
  OnnxValue value{message.text(1), 0, {}};
  for (std::string_view type : message.parts(2)) {
    const Message kinds(type, kTypeFields);
    if (std::any_of(std::begin(kNoTensors), std::end(kNoTensors), [&](int number) { return kinds.has(number); }))
      continue;
    for (std::string_view tensor : kinds.parts(1)) {
      const Message parts(tensor, kTensorTypeFields);
      value.dtype = parts.number(1);
      for (std::string_view shape : parts.parts(2))
        for (std::string_view side : Message(shape, kShapeFields).parts(1)) value.shape.push_back(side_of(side));
    }
  }
  return value;
}

OnnxAttribute attribute_of(std::string_view bytes, int depth) {
  const Message message(bytes, kAttributeFields);
  OnnxAttribute attribute;
  attribute.name = message.text(1);
  if (message.number(20) == kInt && message.has(3) && !message.has(21)) attribute.integer = message.number(3);
  for (int number : {5, 10})
    for (std::string_view part : message.parts(number)) attribute.tensors.push_back(tensor_of(part));
  for (int number : {22, 23}) {
    for (std::string_view part : message.parts(number)) {
      const Message sparse(part, kSparseFields);
      for (int field : {1, 2})
        for (std::string_view tensor : sparse.parts(field)) attribute.tensors.push_back(tensor_of(tensor));
    }
  }
  for (int number : {6, 11})
    for (std::string_view part : message.parts(number)) attribute.graphs.push_back(graph_of(part, depth + 1));
  return attribute;
}

OnnxNode node_of(std::string_view bytes, int depth) {
  const Message message(bytes, kNodeFields);
  OnnxNode node{message.text(4), message.text(7), message.texts(1), message.texts(2), {}};
  for (std::string_view part : message.parts(5)) node.attributes.push_back(attribute_of(part, depth));
  return node;
}

OnnxGraph graph_of(std::string_view bytes, int depth) {
  if (depth > kDeepestGraphs) throw Damaged("graphs inside graphs, too deep");
  const Message message(bytes, kGraphFields);
  OnnxGraph graph;
  for (std::string_view part : message.parts(1)) graph.nodes.push_back(node_of(part, depth));
  for (std::string_view part : message.parts(5)) graph.initializers.push_back(tensor_of(part));
  for (std::string_view part : message.parts(11)) graph.inputs.push_back(value_of(part));
  for (std::string_view part : message.parts(12)) graph.outputs.push_back(value_of(part));
  graph.has_sparse = message.has(15);
  return graph;
}

OnnxFunction function_of(std::string_view bytes) {
  const Message message(bytes, kFunctionFields);
  OnnxFunction function{message.text(1), message.text(10), message.texts(4), {}, {}};
  for (std::string_view part : message.parts(7)) function.nodes.push_back(node_of(part, 0));
  for (std::string_view part : message.parts(11)) function.defaults.push_back(attribute_of(part, 0));
  return function;
}

}  // namespace

bool OnnxNode::has_graphs() const {
  return std::any_of(attributes.begin(), attributes.end(),
                     [](const OnnxAttribute& attribute) { return !attribute.graphs.empty(); });
}

std::vector<std::string> OnnxGraph::source_names() const {
  std::vector<std::string> names;
  for (const OnnxValue& value : inputs) names.push_back(value.name);
  for (const OnnxTensor& tensor : initializers) names.push_back(tensor.name);
  return names;
}

OnnxFile OnnxFile::parse(std::string_view content) {
  const Message message(content, kModelFields);
  if (!message.has(7)) throw Damaged("no graph");
  OnnxFile file{graph_of(message.parts(7).front(), 0), {}, message.has(20)};
  for (std::string_view part : message.parts(25)) file.functions.push_back(function_of(part));
  return file;
}

}  // namespace page4d
