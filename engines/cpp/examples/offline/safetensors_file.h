// Tensors as a .safetensors file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace offline {

struct NamedTensor {
  std::string name, dtype;  // dtype as the format has it: "F64", "F32", "F16"
  std::vector<int64_t> shape;
  const void* data;
  size_t bytes;
};

// Sorted so that every tensor lies at a multiple of its numbers' size. Throws std::filesystem::filesystem_error.
void write_safetensors(const std::filesystem::path& path, std::vector<NamedTensor> tensors);

}  // namespace offline
