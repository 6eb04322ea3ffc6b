#include "pixels/bayer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "pixels/channels.h"
#include "pixels/for_each_cpu.h"

namespace page4d {
namespace {

constexpr int kPixels = Channels::kPixels;

}  // namespace

PAGE4D_FOR_EACH_CPU void rgb_of_bayer(const uint8_t* row, const uint8_t* above, const uint8_t* below, bool in_red_row,
                                      int first, int width, uint8_t* target) noexcept {
  Channels channels;
  uint8_t* own = in_red_row ? channels.red : channels.blue;  // the colour that the row has beside green
  uint8_t* other = in_red_row ? channels.blue : channels.red;
  uint8_t* next = target + 3;
  for (int x = 1; x < width - 1; x += kPixels) {
    const int count = std::min(kPixels, width - 1 - x);
    uint8_t centre[kPixels + 2] = {}, up[kPixels + 2] = {}, down[kPixels + 2] = {};  // with a pixel on both sides
    const size_t bytes = static_cast<size_t>(count) + 2;
    std::memcpy(centre, row + x - 1, bytes);
    std::memcpy(up, above + x - 1, bytes);
    std::memcpy(down, below + x - 1, bytes);
    for (int i = 0; i < kPixels; ++i) {
      const bool is_green = ((i + x) & 1) != first;
      const int left = centre[i], right = centre[i + 2], top = up[i + 1], bottom = down[i + 1];
      const int of_sides = (left + right + top + bottom + 2) >> 2;
      const int of_corners = (up[i] + up[i + 2] + down[i] + down[i + 2] + 2) >> 2;
      own[i] = static_cast<uint8_t>(is_green ? (left + right + 1) >> 1 : centre[i + 1]);
      other[i] = static_cast<uint8_t>(is_green ? (top + bottom + 1) >> 1 : of_corners);
      channels.green[i] = static_cast<uint8_t>(is_green ? centre[i + 1] : of_sides);
    }
    next = channels.write(next, count);
  }
  std::memcpy(target, target + 3, 3);
  std::memcpy(next, next - 3, 3);
}

}  // namespace page4d
