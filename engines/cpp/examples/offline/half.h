// Numbers of 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace offline {

inline std::vector<float> float_of_bfloat16(const uint16_t* values, size_t count) {
  std::vector<float> result(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = uint32_t{values[i]} << 16;  // a float's upper half
    std::memcpy(&result[i], &bits, sizeof bits);
  }
  return result;
}

}  // namespace offline
