// Fits a source image of any size, its masks and its camera to the engines' H x W. Mirrors page4d_engines/clip/fit.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "page4d/image.h"
#include "page4d/layout.h"
#include "resize/opencv_resize.h"
#include "resize/resample.h"

namespace page4d {

// A box of the source image, scaled to a rectangle of the engines' image; pixel edges lie at integers in both.
struct Placement {
  // Throws Error kUsage: a size below 1; another aspect ratio and Fit::kNone; for the published modes a size that
  // their public code does not bring to the engines'.
  static Placement choose(int source_width, int source_height, const Layout& layout, Fit mode);

  // Pixels of the result per pixel of the source.
  double scale_x() const { return width / (right - left); }
  double scale_y() const { return height / (bottom - top); }
  // Position of the source's corner (0, 0) in the result: a point of the source is at `scale * point + shift`.
  double shift_x() const { return x - scale_x() * left; }
  double shift_y() const { return y - scale_y() * top; }

  double left, top, right, bottom;  // of the source
  int x, y, width, height;          // of the result
  uint8_t ground = 0;               // brightness of the result outside
  // Rows that the whole source is scaled to before those above and below the box are cut off, as VGGT's public code
  // does; 0: the box alone is scaled.
  int scaled_height = 0;
  // Width and height that the longer side's scaling gives, as Depth Anything 3's public code does, before the rounding
  // to patches gives `width` and `height`, both with OpenCV's filters; 0: another way.
  int first_width = 0, first_height = 0;
};

// For images of one size. Only the constructor allocates; one thread at a time.
class Fitter {
 public:
  // Throws Error kUsage: as Placement::choose.
  Fitter(int source_width, int source_height, const Layout& layout, Fit mode);

  int source_width() const { return width_; }
  int source_height() const { return height_; }

  // target: uint8 [H,W,3], RGB. Bit for bit Pillow's bicubic resize, or OpenCV's. source: of the source size, in host
  // memory, and not unreadable() (pixels/rgb_row.h).
  void image(const Image& source, uint8_t* target) noexcept;
  // Mean of a kMono8 image over each patch, 0..255 -> 0..1; target: float32 [P].
  // Exact: the source is constant over each of its pixels and zero outside, integrated over the patch in float64.
  void patch_mean(const Image& source, float* target) noexcept;
  // The camera of the fitted image. Throws Error kUsage where it is of another size than the source.
  Camera camera(const Camera& source) const;

 private:
  // How a side of a patch is divided among pixels of the source.
  struct Shares {
    int first;                  // the first of these pixels
    std::vector<double> share;  // of each pixel from the first on
  };
  static std::vector<Shares> overlap(int64_t patches, int pixels, double scale, double shift, double low, double high);

  int width_, height_;
  Layout layout_;
  Placement placement_;
  std::vector<Resample> resample_;      // one, or none where passes_ do it
  std::vector<OpencvResize> passes_;    // two, or none
  std::vector<uint8_t> between_;        // what the first pass gives
  std::vector<Shares> rows_, columns_;  // by row and column of patches
  std::vector<double> sums_;            // [width]: of one row of patches
};

}  // namespace page4d
