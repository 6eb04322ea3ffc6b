#include "tensorrt/creator.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>

#include "error.h"
#include "tensorrt/log.h"
#include "tensorrt/plugin.h"

namespace page4d::plugin {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

template <class T>
double first(const PluginField& field) {
  T value;
  std::memcpy(&value, field.data, sizeof(value));  // data in an engine may be unaligned
  return static_cast<double>(value);
}

double value_of(const PluginField& field) {
  switch (field.type) {
    case PluginFieldType::kFLOAT32:
      return first<float>(field);
    case PluginFieldType::kFLOAT64:
      return first<double>(field);
    case PluginFieldType::kINT32:
      return first<int32_t>(field);
    case PluginFieldType::kINT64:
      return first<int64_t>(field);
    default:
      throw Error(text("a field of a type that no attribute has: ", field.name))
          .got(text(static_cast<int32_t>(field.type)))
          .allowed("float, int");
  }
}

}  // namespace

Creator::Creator(Op op) : op_(op) {
  for (Field field : fields_of(op))
    fields_.emplace_back(page4d::plugin::name_of(field), nullptr,
                         is_floating(field) ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32, 1);
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

nvinfer1::IPluginV3* Creator::createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase) noexcept {
  AttentionPlugin* plugin = nullptr;
  guarded(name != nullptr ? name : getPluginName(), [&] {
    std::map<std::string, double> attributes;
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
      const PluginField& field = fields->fields[i];
      const bool known = std::any_of(fields_.begin(), fields_.end(), [&](const PluginField& known_field) {
        return std::strcmp(known_field.name, field.name) == 0;
      });
      if (known && field.data != nullptr && field.length > 0) attributes[field.name] = value_of(field);
    }
    plugin = new AttentionPlugin(Node(op_, attributes));
  });
  return plugin;
}

}  // namespace page4d::plugin
