#include "pixels/rgb_row.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "pixels/bayer.h"
#include "pixels/yuv.h"

namespace page4d {
namespace {

const uint8_t* row_of(const Image& image, int y) {
  return static_cast<const uint8_t*>(image.data) + static_cast<size_t>(y) * image.row_bytes();
}

size_t chroma_row_bytes(const Image& image) { return image.chroma_pitch != 0 ? image.chroma_pitch : image.row_bytes(); }

const uint8_t* chroma_row_of(const Image& image, int y) {
  const auto* plane = static_cast<const uint8_t*>(image.chroma);
  return (plane != nullptr ? plane : row_of(image, image.height)) +
         static_cast<size_t>(y / 2) * chroma_row_bytes(image);
}

template <int kStep, int kRed, int kGreen, int kBlue>
void pick(const uint8_t* pixel, int width, uint8_t* target) {
  for (int x = 0; x < width; ++x, pixel += kStep, target += 3)
    target[0] = pixel[kRed], target[1] = pixel[kGreen], target[2] = pixel[kBlue];
}

// red_row, red_column: of the first red pixel.
void bayer(const Image& source, int y, int red_row, int red_column, uint8_t* target) {
  y = std::clamp(y, 1, source.height - 2);  // border rows have the colours of the next
  const bool in_red_row = y % 2 == red_row;
  rgb_of_bayer(row_of(source, y), row_of(source, y - 1), row_of(source, y + 1), in_red_row,
               in_red_row ? red_column : 1 - red_column, source.width, target);
}

}  // namespace

const char* unreadable(const Image& image) noexcept {
  switch (image.format) {
    case PixelFormat::kNv12:
    case PixelFormat::kNv21:
      if (image.width % 2 != 0 || image.height % 2 != 0)
        return "an image of NV12 or NV21 has an odd size\n  allowed: an even width and height";
      if (chroma_row_bytes(image) < static_cast<size_t>(image.width))
        return "the rows of an image's second plane overlap\n  allowed: a chroma_pitch of its width or more, or 0";
      return nullptr;
    case PixelFormat::kYuyv:
    case PixelFormat::kUyvy:
      if (image.width % 2 != 0) return "an image of YUYV or UYVY has an odd width\n  allowed: an even one";
      return nullptr;
    case PixelFormat::kBayerRggb8:
    case PixelFormat::kBayerBggr8:
    case PixelFormat::kBayerGbrg8:
    case PixelFormat::kBayerGrbg8:
      static_assert(kLeastBayer == 3, "as the message says");
      if (std::min(image.width, image.height) < kLeastBayer)
        return "an image of a Bayer pattern is too small to interpolate\n  allowed: 3x3 or more";
      return nullptr;
    default:
      return nullptr;
  }
}

void rgb_row(const Image& source, int y, uint8_t* target) noexcept {
  const uint8_t* row = row_of(source, y);
  const int width = source.width;
  switch (source.format) {
    case PixelFormat::kRgb8:
      std::memcpy(target, row, static_cast<size_t>(width) * 3);
      break;
    case PixelFormat::kBgr8:
      pick<3, 2, 1, 0>(row, width, target);
      break;
    case PixelFormat::kRgba8:
      pick<4, 0, 1, 2>(row, width, target);
      break;
    case PixelFormat::kBgra8:
      pick<4, 2, 1, 0>(row, width, target);
      break;
    case PixelFormat::kMono8:
      pick<1, 0, 0, 0>(row, width, target);
      break;
    case PixelFormat::kNv12:
    case PixelFormat::kNv21:
      rgb_of_semiplanar(row, chroma_row_of(source, y), source.format == PixelFormat::kNv21, width, target);
      break;
    case PixelFormat::kYuyv:
    case PixelFormat::kUyvy:
      rgb_of_packed(row, source.format == PixelFormat::kYuyv, width, target);
      break;
    case PixelFormat::kBayerRggb8:
      bayer(source, y, 0, 0, target);
      break;
    case PixelFormat::kBayerBggr8:
      bayer(source, y, 1, 1, target);
      break;
    case PixelFormat::kBayerGbrg8:
      bayer(source, y, 1, 0, target);
      break;
    case PixelFormat::kBayerGrbg8:
      bayer(source, y, 0, 1, target);
      break;
  }
}

}  // namespace page4d
