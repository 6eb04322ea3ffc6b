// Images as a caller has them, and how they come to the engines' size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace page4d {

enum class Memory { kHost, kDevice };

// Bytes of a pixel in their order.
enum class PixelFormat { kRgb8, kBgr8, kRgba8, kBgra8, kMono8 };

constexpr int bytes_per_pixel(PixelFormat format) {
  return format == PixelFormat::kMono8 ? 1 : format == PixelFormat::kRgb8 || format == PixelFormat::kBgr8 ? 3 : 4;
}

// An image that someone else owns.
struct Image {
  const void* data = nullptr;
  int width = 0, height = 0;
  size_t pitch = 0;  // bytes from a row to the next; 0: rows follow one another
  PixelFormat format = PixelFormat::kRgb8;
  Memory memory = Memory::kHost;

  size_t row_bytes() const {
    return pitch != 0 ? pitch : static_cast<size_t>(width) * static_cast<size_t>(bytes_per_pixel(format));
  }
};

// What becomes of an aspect ratio that is not the engines', as page4d-run's --fit.
enum class Fit {
  kNone,     // an error, beyond half a patch of rounding
  kStretch,  // each axis is scaled by itself
  kCrop,     // scaled to cover the engines' size; what sticks out is cut off, the same on both sides
  kPad,      // scaled to lie inside the engines' size; black around it, the same on both sides
};

// A pinhole camera, as an entry of cameras.json: pixel edges lie at integers, x right, y down, z forward.
struct Camera {
  int width = 0, height = 0;        // of the images, in pixels
  double K[9] = {};                 // row by row, in pixels
  double world_to_camera[12] = {};  // 3x4, row by row
};

}  // namespace page4d
