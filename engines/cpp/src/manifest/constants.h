// The model's constants, from the folder's .safetensors file, in the engines' type.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "manifest/engine_folder.h"
#include "page4d/engine_info.h"

namespace page4d {

using Bytes = std::vector<unsigned char>;

// Tensors of a .safetensors file by name; all must be float32, as the exporter writes constants.
// Throws Error kIncompatible: no such file, damaged, or another type.
std::map<std::string, std::vector<float>> read_constants(const std::string& path);

// Those of an engine folder: "special" and, where the engines have it, "memory", and no others.
// Throws Error kIncompatible: as above; one is missing, of another shape or not finite, or there is one more.
std::map<std::string, std::vector<float>> read_constants(const EngineFolder& folder);

// Rounded to nearest even, where the type has 16 bits. dtype: a floating one.
Bytes converted(const std::vector<float>& values, DType dtype);

}  // namespace page4d
