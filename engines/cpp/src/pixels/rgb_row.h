// Rows of images of any format as RGB, byte for byte as OpenCV computes them. Mirrors page4d_engines/clip/pixels.
#pragma once

#include <cstdint>

#include "page4d/image.h"

namespace page4d {

// Why an image cannot be read, beside what its data, width and pitch say: a size that its format has not, or rows of
// the second plane that overlap. A constant text; null: it can be read.
const char* unreadable(const Image& image) noexcept;

// Row y as RGB. source: in host memory, and not unreadable(). target: uint8 [width,3]. Alpha is ignored.
void rgb_row(const Image& source, int y, uint8_t* target) noexcept;

}  // namespace page4d
