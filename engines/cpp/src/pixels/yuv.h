// Rows of YUV as RGB: BT.601 of limited range, in OpenCV's integers; page4d_engines/clip/pixels/yuv.py has the formula.
#pragma once

#include <cstdint>

namespace page4d {

// Widths are even. target: uint8 [width,3].

// luma: [width]; chroma: [width/2,2], U and V in turn or, with v_first, V and U.
void rgb_of_semiplanar(const uint8_t* luma, const uint8_t* chroma, bool v_first, int width, uint8_t* target) noexcept;

// row: [width/2,4], Y U Y V or, without luma_first, U Y V Y.
void rgb_of_packed(const uint8_t* row, bool luma_first, int width, uint8_t* target) noexcept;

}  // namespace page4d
