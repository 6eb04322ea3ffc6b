#include "tensorrt/plugin.h"

#include <algorithm>
#include <string_view>

#include "error.h"
#include "kernels/kernel_table.h"
#include "tensorrt/log.h"

namespace page4d::plugin {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

std::string_view name_of(DataType type) {
  switch (type) {
    case DataType::kHALF:
      return "float16";
    case DataType::kBF16:
      return "bfloat16";
    case DataType::kFLOAT:
      return "float32";
    case DataType::kINT32:
      return "int32";
    default:
      return "";
  }
}

const PluginTensorDesc& desc_of(const PluginTensorDesc& tensor) { return tensor; }
const PluginTensorDesc& desc_of(const DynamicPluginTensorDesc& tensor) { return tensor.desc; }

template <class Desc>
Shape shape_of(const Node& node, const Desc* inputs, int32_t nb_inputs) {
  std::vector<Node::Dims> shapes;
  for (int32_t i = 0; i < nb_inputs; ++i) {
    const nvinfer1::Dims& dims = desc_of(inputs[i]).dims;
    shapes.emplace_back(dims.d, dims.d + std::max(dims.nbDims, 0));
    if (dims.nbDims < 0 ||
        std::any_of(shapes.back().begin(), shapes.back().end(), [](int64_t size) { return size < 0; }))
      throw Error("an input's shape is not known when the engine is built")
          .got(text_of(shapes.back()))
          .allowed("fixed shapes");
  }
  return node.shape(shapes, dtype_named(nb_inputs > 0 ? name_of(desc_of(inputs[0]).type) : ""));
}

}  // namespace

AttentionPlugin::AttentionPlugin(const Node& node) : node_(node) {
  for (const auto& [field, value] : node_.fields())
    numbers_.push_back({static_cast<float>(value), static_cast<int32_t>(value)});
  const Number* number = numbers_.data();
  for (const auto& field : node_.fields()) {
    const bool floating = is_floating(field.first);
    const void* data = floating ? static_cast<const void*>(&number->floating) : &number->integer;
    fields_.emplace_back(page4d::plugin::name_of(field.first), data,
                         floating ? nvinfer1::PluginFieldType::kFLOAT32 : nvinfer1::PluginFieldType::kINT32, 1);
    ++number;
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

nvinfer1::IPluginCapability* AttentionPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

AttentionPlugin* AttentionPlugin::clone() noexcept {
  AttentionPlugin* copy = nullptr;
  guarded(getPluginName(), [&] { copy = new AttentionPlugin(node_); });
  return copy;
}

int32_t AttentionPlugin::getOutputDataTypes(DataType* outputs, int32_t, const DataType* inputs,
                                            int32_t) const noexcept {
  outputs[0] = inputs[0];
  return 0;
}

int32_t AttentionPlugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t, const nvinfer1::DimsExprs*,
                                         int32_t, nvinfer1::DimsExprs* outputs, int32_t,
                                         nvinfer1::IExprBuilder&) noexcept {
  outputs[0] = inputs[0];
  return 0;
}

bool AttentionPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                                int32_t nb_inputs, int32_t) noexcept {
  if (tensors[position].desc.format != nvinfer1::TensorFormat::kLINEAR) return false;
  bool accepted = false;
  guarded(getPluginName(), [&] {
    std::vector<std::string_view> types(static_cast<size_t>(nb_inputs) + 1);
    for (int32_t i = 0; i <= position; ++i) types.at(static_cast<size_t>(i)) = name_of(tensors[i].desc.type);
    accepted = node_.accepts(static_cast<size_t>(position), types);
  });
  return accepted;
}

int32_t AttentionPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t nb_inputs,
                                         const DynamicPluginTensorDesc*, int32_t) noexcept {
  // planned as well, so that sizes which no kernel takes end the build with their own message
  return guarded(getPluginName(), [&] { most_workspace(shape_of(node_, inputs, nb_inputs), KernelTable::embedded()); });
}

size_t AttentionPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t nb_inputs,
                                         const DynamicPluginTensorDesc*, int32_t) const noexcept {
  int64_t size = 0;
  guarded(getPluginName(), [&] { size = most_workspace(shape_of(node_, inputs, nb_inputs), KernelTable::embedded()); });
  return static_cast<size_t>(size);
}

const nvinfer1::PluginFieldCollection* AttentionPlugin::getFieldsToSerialize() noexcept { return &collection_; }

int32_t AttentionPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t nb_inputs, const PluginTensorDesc*,
                                       int32_t) noexcept {
  return guarded(getPluginName(), [&] {
    const Shape shape = shape_of(node_, inputs, nb_inputs);
    if (launcher_ && launcher_->shape() == shape) return;
    launcher_.reset();
    launcher_.emplace(shape, KernelTable::embedded());
    inputs_ = static_cast<size_t>(nb_inputs);
  });
}

int32_t AttentionPlugin::enqueue(const PluginTensorDesc*, const PluginTensorDesc*, const void* const* inputs,
                                 void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
  return guarded(getPluginName(), [&] {
    if (!launcher_) throw Error("enqueued before its shapes were given");
    Addresses addresses{};
    const auto at = [&](Tensor tensor) -> uint64_t& { return addresses[static_cast<size_t>(tensor)]; };
    for (size_t i = 0; i < inputs_; ++i) at(inputs_of(node_.op())[i]) = reinterpret_cast<uint64_t>(inputs[i]);
    at(Tensor::kOut) = reinterpret_cast<uint64_t>(outputs[0]);
    at(Tensor::kWorkspace) = reinterpret_cast<uint64_t>(workspace);
    launcher_->launch(addresses, reinterpret_cast<cuda::Stream>(stream));
  });
}

nvinfer1::IPluginV3* AttentionPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

}  // namespace page4d::plugin
