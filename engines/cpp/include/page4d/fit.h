// Fitting images to the engines' size, for programs that show what the engines see, or calibrate it. Pipeline fits its
// images itself.
#pragma once

#include <memory>

#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/image.h"
#include "page4d/layout.h"

namespace page4d {

// For images of one size. Only the constructor allocates; one thread at a time.
class PAGE4D_API ImageFit {
 public:
  // Throws Error and nothing else: kUsage for a size below 1, for another aspect ratio and Fit::kNone, and where the
  // public code that `fit` names does not bring the images to the engines' size; kOutOfMemory.
  ImageFit(int source_width, int source_height, const Layout& layout, Fit fit);
  ~ImageFit();

  // target: uint8 [H,W,3], RGB; bit for bit what Pipeline::run gives the engines. source: of the source size, which
  // its format has, in host memory.
  void image(const Image& source, unsigned char* target) noexcept;
  // The rectangle of the engines' image that the source covers, in pixels; outside the image is zero,
  // or 255 for Fit::kPublishedPad.
  void target(int& left, int& top, int& width, int& height) const;
  // For x and y: a point of the source is at scale * point + shift in the engines' image; pixel edges are at integers
  // in both.
  void scale_shift(double scale[2], double shift[2]) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace page4d
