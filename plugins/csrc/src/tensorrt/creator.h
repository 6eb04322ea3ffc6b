// Creates plugins of one op, from a node's attributes or from the fields in an engine.
#pragma once

#include <vector>

#include "NvInferRuntime.h"
#include "plan/node.h"

namespace page4d::plugin {

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(Op op);

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return name_of(op_); }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  Op op_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace page4d::plugin
