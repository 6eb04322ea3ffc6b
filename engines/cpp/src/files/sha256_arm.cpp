// SHA-256 by ARMv8's cryptographic extension: Jetson, Grace, Graviton; a Raspberry Pi has it from the 5th on.
// CMakeLists.txt compiles this file for CPUs that have it: it calls nothing that others may run.
#include "files/sha256_blocks.h"

#ifdef __aarch64__
#include <arm_neon.h>
#include <sys/auxv.h>

namespace page4d {
namespace {

constexpr unsigned long kHasSha2 = 1 << 6;  // HWCAP_SHA2 of asm/hwcap.h

void add_blocks_by_sha2(uint32_t* state, const uint8_t* data, size_t count) {
  uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
  for (; count > 0; --count, data += 64) {
    const uint32x4_t abcd_before = abcd, efgh_before = efgh;
    uint32x4_t words[4];  // the next sixteen
    for (int i = 0; i < 4; ++i) words[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {  // four rounds
      const uint32x4_t sums = vaddq_u32(words[i % 4], vld1q_u32(kSha256Rounds + 4 * i)), abcd_here = abcd;
      abcd = vsha256hq_u32(abcd, efgh, sums);
      efgh = vsha256h2q_u32(efgh, abcd_here, sums);
      if (i >= 12) continue;
      const uint32x4_t partial = vsha256su0q_u32(words[i % 4], words[(i + 1) % 4]);
      words[i % 4] = vsha256su1q_u32(partial, words[(i + 2) % 4], words[(i + 3) % 4]);
    }
    abcd = vaddq_u32(abcd, abcd_before);
    efgh = vaddq_u32(efgh, efgh_before);
  }
  vst1q_u32(state, abcd);
  vst1q_u32(state + 4, efgh);
}

}  // namespace

Sha256Blocks sha256_instructions() { return (getauxval(AT_HWCAP) & kHasSha2) != 0 ? add_blocks_by_sha2 : nullptr; }

}  // namespace page4d
#endif
