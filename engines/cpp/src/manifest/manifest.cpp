#include "manifest/manifest.h"

#include <algorithm>

namespace page4d {
namespace {

const TensorSpec* find(const std::vector<TensorSpec>& specs, const std::string& tensor) {
  const auto spec = std::find_if(specs.begin(), specs.end(), [&](const TensorSpec& s) { return s.name == tensor; });
  return spec == specs.end() ? nullptr : &*spec;
}

}  // namespace

int64_t count_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

const TensorSpec* Stage::input(const std::string& tensor) const { return find(inputs, tensor); }
const TensorSpec* Stage::output(const std::string& tensor) const { return find(outputs, tensor); }

DType Manifest::dtype() const {
  if (precision == "float16" || precision == "fp8") return DType::kFloat16;
  return precision == "bfloat16" ? DType::kBfloat16 : DType::kFloat32;
}

bool Manifest::makes(const std::string& tensor) const {
  return std::any_of(stages.begin(), stages.end(), [&](const Stage& stage) { return stage.output(tensor) != nullptr; });
}

bool Manifest::reads(const std::string& tensor) const {
  return std::any_of(stages.begin(), stages.end(), [&](const Stage& stage) { return stage.input(tensor) != nullptr; });
}

std::vector<std::string> Manifest::constants() const {
  std::vector<std::string> names;
  if (reads("special") && !makes("special")) names.push_back("special");
  if (reads("memory")) names.push_back("memory");
  return names;
}

const TensorSpec* Manifest::spec(const std::string& tensor) const {
  for (const Stage& stage : stages) {
    if (const TensorSpec* spec = stage.input(tensor)) return spec;
    if (const TensorSpec* spec = stage.output(tensor)) return spec;
  }
  return nullptr;
}

}  // namespace page4d
