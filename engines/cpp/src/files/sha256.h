// SHA-256 of a file's content (FIPS 180-4). Our own, because the library's other dependencies are headers only: a build
// for another architecture then needs nothing but a compiler.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "files/sha256_blocks.h"

namespace page4d {

class Sha256 {
 public:
  // By one of sha256_methods().
  explicit Sha256(Sha256Blocks add_blocks = sha256_methods().front().add_blocks) : add_blocks_(add_blocks) {}

  void add(const void* data, size_t size);
  // In hexadecimal; add() must not be called afterwards.
  std::string digest();

 private:
  Sha256Blocks add_blocks_;
  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> rest_{};
  uint64_t size_ = 0;
};

// Throws std::ios_base::failure if the file cannot be read.
std::string sha256_of(const std::string& path);

}  // namespace page4d
