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

// The tensors of a .safetensors file by name; all must be float32, as the exporter writes constants.
// Throws Error kIncompatible: no such file, damaged, or another type.
std::map<std::string, std::vector<float>> read_constants(const std::string& path);

// The constants of an engine folder: Manifest::constants, and no others.
// Throws Error kIncompatible: as above; a constant is missing, of another shape or not finite, or there are more.
std::map<std::string, std::vector<float>> read_constants(const EngineFolder& folder);

// The values in a floating-point type, 16-bit types rounded to nearest even.
Bytes converted(const std::vector<float>& values, DType dtype);

}  // namespace page4d
