#include "cuda/host_memory.h"

#include <fstream>
#include <limits>

namespace page4d {

std::optional<size_t> available_host_memory(const std::string& meminfo) {
  constexpr size_t kUnit = 1024;  // the file is in KiB
  std::ifstream file(meminfo);
  for (std::string name; file >> name; file.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    size_t number = 0;
    if (name == "MemAvailable:") return file >> number ? std::optional<size_t>(number * kUnit) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace page4d
