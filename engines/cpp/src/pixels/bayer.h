// Rows of Bayer patterns as RGB, interpolated linearly; page4d_engines/clip/pixels/bayer.py has the rules.
#pragma once

#include <cstdint>

namespace page4d {

constexpr int kLeastBayer = 3;  // pixels of each side

// Colours of a row inside a pattern. row, above, below: uint8 [width], width at least kLeastBayer.
// in_red_row: whether the row has red pixels, else it has blue ones; first: the column of the first of them, 0 or 1.
// target: uint8 [width,3].
void rgb_of_bayer(const uint8_t* row, const uint8_t* above, const uint8_t* below, bool in_red_row, int first, int width,
                  uint8_t* target) noexcept;

}  // namespace page4d
