// Images and cameras of the caller, and how images are fitted to the engines' size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace page4d {

enum class Memory { kHost, kDevice };

// How pixels lie in memory. The values are page4d_pixels'.
//
// YUV is as cameras give it: BT.601, limited range (Y 16 to 235). Two pixels of a row share U and V, and in NV12 and
// NV21 those of the row below, too: width and, there, height must be even. A Bayer pattern is named by its upper left
// four pixels, first row first; missing colours are interpolated linearly, for which it takes 3x3 pixels at least.
enum class PixelFormat {
  kRgb8,
  kBgr8,
  kRgba8,  // alpha is ignored
  kBgra8,
  kMono8,
  kNv12,        // a plane of Y, and one of U and V in turn, which has half the rows
  kNv21,        // the same, V and U in turn
  kYuyv,        // Y0 U Y1 V: two pixels in four bytes; also called YUY2
  kUyvy,        // U Y0 V Y1
  kBayerRggb8,  // red green / green blue
  kBayerBggr8,
  kBayerGbrg8,
  kBayerGrbg8,
};

// Bytes of a pixel in the first plane.
constexpr int bytes_per_pixel(PixelFormat format) {
  switch (format) {
    case PixelFormat::kRgb8:
    case PixelFormat::kBgr8:
      return 3;
    case PixelFormat::kRgba8:
    case PixelFormat::kBgra8:
      return 4;
    case PixelFormat::kYuyv:
    case PixelFormat::kUyvy:
      return 2;
    default:
      return 1;
  }
}

// An image in the caller's memory.
struct Image {
  const void* data = nullptr;
  int width = 0, height = 0;
  size_t pitch = 0;  // bytes from one row to the next; 0: no padding between rows
  PixelFormat format = PixelFormat::kRgb8;
  Memory memory = Memory::kHost;
  // Of kNv12 and kNv21, else not looked at: the second plane, null: it follows the last row of the first; and bytes
  // from one of its rows to the next, 0: as many as in the first.
  const void* chroma = nullptr;
  size_t chroma_pitch = 0;

  size_t row_bytes() const {
    return pitch != 0 ? pitch : static_cast<size_t>(width) * static_cast<size_t>(bytes_per_pixel(format));
  }
};

// What happens to images of another aspect ratio than the engines'; as page4d-run's --fit.
enum class Fit {
  kNone,     // an error, if the sizes differ by more than half a patch
  kStretch,  // each axis is scaled on its own
  kCrop,     // scaled to cover the engines' size; the rest is cut off, equally on both sides
  kPad,      // scaled to fit inside the engines' size, with black borders of equal width
  // As VGGT's public code, mode "crop": scaled to the engines' width, the height rounded to a multiple of 14; of more
  // rows than the width has columns, the middle ones are taken. For engines of the height that comes out. Pipeline and
  // Rig take it for kPublishedDa3 where the engines are Depth Anything 3's.
  kPublished,
  // The same, mode "pad": the longer side is scaled to the engines' width, the other rounded to a multiple of 14, with
  // white borders of equal width. For square engines.
  kPublishedPad,
  // As Depth Anything 3's public code: the longer side is scaled to 504 pixels, or else to the engines' longer side,
  // and then each to the nearest multiple of 14, with OpenCV's filters. For engines of the size that comes out.
  kPublishedDa3,
};

// A pinhole camera, as an entry of cameras.json. Pixel edges are at integers; x right, y down, z forward.
struct Camera {
  int width = 0, height = 0;        // of the images, in pixels
  double K[9] = {};                 // row by row, in pixels
  double world_to_camera[12] = {};  // 3x4, row by row
};

}  // namespace page4d
