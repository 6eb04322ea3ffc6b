// Colours of some pixels of a row, computed together before they become pixels: compilers make vectors of such loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace page4d {

struct Channels {
  static constexpr int kPixels = 32;

  uint8_t red[kPixels], green[kPixels], blue[kPixels];

  // The first `count` as RGB; returns the end.
  inline __attribute__((always_inline)) uint8_t* write(uint8_t* __restrict target, int count) const {
    if (count == kPixels) {
      put(target, kPixels);
    } else {
      put(target, count);
    }
    return target + static_cast<ptrdiff_t>(3 * count);
  }

 private:
  inline __attribute__((always_inline)) void put(uint8_t* __restrict target, int count) const {
    for (int i = 0; i < count; ++i) {
      target[3 * i] = red[i];
      target[3 * i + 1] = green[i];
      target[3 * i + 2] = blue[i];
    }
  }
};

}  // namespace page4d
