// One attention node as a TensorRT plugin. Mirrors tensorrt/plugin.py.
#pragma once

#include <optional>
#include <vector>

#include "NvInferRuntime.h"
#include "launch/launcher.h"
#include "plan/node.h"

namespace page4d::plugin {

// Errors are logged and returned as codes, since no exception may leave a plugin.
class AttentionPlugin final : public nvinfer1::IPluginV3,
                              public nvinfer1::IPluginV3OneCore,
                              public nvinfer1::IPluginV3OneBuild,
                              public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit AttentionPlugin(const Node& node);
  AttentionPlugin(const AttentionPlugin&) = delete;  // its fields point into it: `clone` makes a new one from the node
  AttentionPlugin& operator=(const AttentionPlugin&) = delete;

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  AttentionPlugin* clone() noexcept override;

  const char* getPluginName() const noexcept override { return name_of(node_.op()); }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // ---- build

  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t nb_outputs, const nvinfer1::DataType* inputs,
                             int32_t nb_inputs) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t nb_inputs, const nvinfer1::DimsExprs* shape_inputs,
                          int32_t nb_shape_inputs, nvinfer1::DimsExprs* outputs, int32_t nb_outputs,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t nb_inputs,
                                 int32_t nb_outputs) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t nb_inputs,
                          const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t nb_outputs) noexcept override;
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t nb_inputs,
                          const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t nb_outputs) const noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

  // ---- run

  // Loads the kernels: `enqueue` only launches.
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t nb_inputs,
                        const nvinfer1::PluginTensorDesc* outputs, int32_t nb_outputs) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;

 private:
  struct Number {
    float floating;
    int32_t integer;
  };

  Node node_;
  std::vector<Number> numbers_;  // the fields' values as they are written to an engine
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
  std::optional<Launcher> launcher_;
  size_t inputs_ = 0;  // of the launcher's call
};

}  // namespace page4d::plugin
