// The checksum that Python's zlib.crc32 gives.
#pragma once

#include <cstdint>
#include <vector>

inline uint32_t crc32(const std::vector<uint8_t>& bytes) {
  uint32_t crc = ~0U;
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}
