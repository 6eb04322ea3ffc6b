#include "files/sha256.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

namespace page4d {

void Sha256::add(const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  size_t filled = size_ % 64;
  size_ += size;
  if (filled != 0) {
    const size_t count = std::min(size, 64 - filled);
    std::memcpy(rest_.data() + filled, bytes, count);
    bytes += count;
    size -= count;
    if (filled + count < 64) return;
    add_blocks_(state_.data(), rest_.data(), 1);
  }
  add_blocks_(state_.data(), bytes, size / 64);
  if (size % 64 != 0) std::memcpy(rest_.data(), bytes + size / 64 * 64, size % 64);
}

std::string Sha256::digest() {
  const uint64_t bits = 8 * size_;
  const uint8_t end = 0x80, zero = 0;
  add(&end, 1);
  while (size_ % 64 != 56) add(&zero, 1);
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  add(length, 8);
  std::string hex;
  for (uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
  }
  return hex;
}

std::string sha256_of(const std::string& path) {
  std::ifstream file;
  file.exceptions(std::ios::badbit);
  file.open(path, std::ios::binary);
  if (!file) throw std::ios_base::failure(path);
  std::vector<char> chunk(1 << 20);
  Sha256 hash;
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), file.gcount() > 0) {
    hash.add(chunk.data(), static_cast<size_t>(file.gcount()));
  }
  return hash.digest();
}

}  // namespace page4d
