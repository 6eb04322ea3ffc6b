#include "files/sha256_blocks.h"

namespace page4d {
namespace {

constexpr uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

void add_blocks(uint32_t* state, const uint8_t* data, size_t count) {
  for (; count > 0; --count, data += 64) {
    uint32_t words[64];
    for (int i = 0; i < 16; ++i) {
      words[i] = uint32_t{data[4 * i]} << 24 | uint32_t{data[4 * i + 1]} << 16 | uint32_t{data[4 * i + 2]} << 8 |
                 data[4 * i + 3];
    }
    for (int i = 16; i < 64; ++i) {
      const uint32_t x = words[i - 15], y = words[i - 2];
      words[i] =
          words[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + words[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; ++i) {
      const uint32_t t1 =
          h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (g ^ (e & (f ^ g))) + kSha256Rounds[i] + words[i];
      const uint32_t t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += sums[i];
  }
}

}  // namespace

#if !defined(__x86_64__) && !defined(__aarch64__)
Sha256Blocks sha256_instructions() { return nullptr; }
#endif

const std::vector<Sha256Method>& sha256_methods() {
  static const std::vector<Sha256Method> methods = [] {
    std::vector<Sha256Method> all{{"portable", add_blocks}};
    if (const Sha256Blocks by_instructions = sha256_instructions(); by_instructions != nullptr)
      all.insert(all.begin(), {"instructions", by_instructions});
    return all;
  }();
  return methods;
}

}  // namespace page4d
