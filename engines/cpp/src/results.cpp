#include "page4d/pipeline.h"

namespace page4d {

Results::Results(const EngineInfo& info) : info_(info) {
  size_t layer = 0;
  for (const Tensor& tensor : info_.outputs) {
    memory_.emplace_back(tensor.bytes);
    const Output output{memory_.back().data(), tensor.bytes, Memory::kHost};
    if (tensor.name == "mask") outputs_.mask = output;
    else if (tensor.name == "memory") outputs_.memory = output;
    else if (tensor.name == "points") outputs_.points = output;
    else if (tensor.name == "confidence") outputs_.confidence = output;
    else if (tensor.name == "camera") outputs_.camera = output;
    else outputs_.layers[layer++] = output;
  }
}

const void* Results::data(const std::string& name) const noexcept {
  for (size_t i = 0; i < info_.outputs.size(); ++i) {
    if (info_.outputs[i].name == name) return memory_[i].data();
  }
  return nullptr;
}

}  // namespace page4d
