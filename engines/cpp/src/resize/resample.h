// Bicubic resize of 8-bit images with antialias, bit for bit as Pillow computes it without SIMD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "page4d/image.h"

namespace page4d {

// Image.resize(size, BICUBIC, box=box) of an RGB image, or some of its rows. Only the constructor allocates; one thread
// at a time.
class Resample {
 public:
  // The part of the source that is used, in pixels; pixel edges are at integers. float, as in Pillow.
  struct Box {
    float left, top, right, bottom;
  };

  // Rows of the result that are computed: from `begin`, before `end`, of `height` rows that the box is scaled to.
  struct Rows {
    int height, begin, end;
  };

  // Sizes are at least 1, the box is inside the source.
  Resample(int source_width, int source_height, const Box& box, int width, const Rows& rows);

  // source: of the source size, in host memory, and not unreadable() (pixels/rgb_row.h). target: uint8 [rows,width,3],
  // RGB, `pitch` bytes from one row to the next.
  void run(const Image& source, uint8_t* target, size_t pitch) noexcept;

  // Weights of the source pixels for each pixel of an axis.
  struct Axis {
    // Pixels from `from` on, before `until`, of those that the source from low to high is scaled to.
    Axis(int source_size, float low, float high, int scaled, int from, int until);

    const int32_t* weights_of(int pixel) const {
      return weights.data() + static_cast<size_t>(pixel) * static_cast<size_t>(most);
    }
    // Source pixels that are read: from `begin()`, before `end()`.
    int begin() const { return first.front(); }
    int end() const { return first.back() + taps.back(); }

    int size, from;                // how many pixels, and the first
    bool identity;                 // nothing is computed
    int most;                      // taps of a pixel
    std::vector<int> first, taps;  // for each pixel: the first source pixel, and how many
    std::vector<int32_t> weights;  // [size, most], fixed point
  };

 private:
  Axis across_, down_;
  std::vector<uint8_t> converted_;  // some rows of the source as RGB, where it is YUV or a Bayer pattern
  std::vector<uint8_t> strip_;      // some rows of the source, side by side
  std::vector<uint8_t> rows_;       // the source rows that are read, in the target's width
  size_t rows_pitch_;
};

}  // namespace page4d
