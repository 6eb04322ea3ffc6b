// OpenCV's resize of 8-bit RGB images, bit for bit: INTER_AREA where no side grows, INTER_CUBIC where one does.
// Mirrors page4d_engines/clip/da3/opencv_resize.py, which says what is followed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "page4d/image.h"

namespace page4d {

// For images of one size. Only the constructor allocates; one thread at a time.
class OpencvResize {
 public:
  // Sizes are at least 1.
  OpencvResize(int source_width, int source_height, int width, int height);

  int width() const { return width_; }
  int height() const { return height_; }

  // source: of the source size, in host memory, and not unreadable() (pixels/rgb_row.h).
  // target: uint8 [height,width,3], RGB.
  void run(const Image& source, uint8_t* target) noexcept;

 private:
  // Which source pixels a result pixel is made of, for one axis.
  struct Taps {
    const float* weights_of(int pixel) const {
      return weights.data() + static_cast<size_t>(pixel) * static_cast<size_t>(most);
    }
    int first_of(int pixel) const { return first[static_cast<size_t>(pixel)]; }

    int most = 0;                // taps of a pixel
    std::vector<int> first;      // of each pixel the first source pixel; before 0 for a cubic at the border
    std::vector<float> weights;  // [pixels, most], 0 for taps that a pixel has not
  };
  static Taps area_taps(int source, int target);
  static Taps cubic_taps(int source, int target);

  void copy(const Image& source, uint8_t* target) noexcept;
  void average_blocks(const Image& source, uint8_t* target) noexcept;
  void shrink(const Image& source, uint8_t* target) noexcept;
  void interpolate(const Image& source, uint8_t* target) noexcept;
  // The source's row as RGB, in row_.
  void read_row(const Image& source, int y) noexcept;

  int source_width_, source_height_, width_, height_;
  Taps across_, down_;
  std::vector<uint8_t> row_;      // of the source
  std::vector<float> row_sums_;   // of one source row, in the result's width
  std::vector<float> sums_;       // of one row of the result
  std::vector<int32_t> blocks_;   // likewise
  std::vector<int32_t> between_;  // all source rows, in the result's width
};

}  // namespace page4d
