#include <utility>

#include "boundary.h"
#include "page4d/pipeline.h"
#include "runtime/output_names.h"
#include "text.h"

namespace page4d {

Results::Results(const EngineInfo& info) {
  only_errors([&] { allocate(info); });
}

Results::Results(Results&& other) noexcept
    : info_(std::move(other.info_)), memory_(std::move(other.memory_)), outputs_(std::exchange(other.outputs_, {})) {
  other.info_.outputs.clear();
}

Results& Results::operator=(Results&& other) noexcept {
  Results moved(std::move(other));  // first, should both be the same
  std::swap(info_, moved.info_);
  std::swap(memory_, moved.memory_);
  std::swap(outputs_, moved.outputs_);
  return *this;
}

Results::~Results() = default;

void Results::allocate(const EngineInfo& info) {
  info_ = info;
  int layer = 0;
  for (const Tensor& tensor : info_.outputs) {
    memory_.emplace_back(tensor.bytes);
    const Output output{memory_.back().data(), tensor.bytes, Memory::kHost};
    if (Output Outputs::* member = output_called(tensor.name); member != nullptr)
      outputs_.*member = output;
    else if (layer < Outputs::kMostLayers)
      outputs_.layers[layer++] = output;
    else
      throw Error(Code::kUsage, "the engines keep more layers than a program can take")
          .allowed(text(Outputs::kMostLayers));
  }
}

const void* Results::data(const std::string& name) const noexcept {
  for (size_t i = 0; i < info_.outputs.size(); ++i) {
    if (info_.outputs[i].name == name) return memory_[i].data();
  }
  return nullptr;
}

}  // namespace page4d
