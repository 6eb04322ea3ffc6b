// How images come to the engines' size, for callers that show or calibrate what the engines saw. Pipeline does this by
// itself.
#pragma once

#include <memory>

#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/image.h"
#include "page4d/layout.h"

namespace page4d {

// For images of one size. Allocates when it is made, and never after; one thread at a time.
class PAGE4D_API ImageFit {
 public:
  // Throws Error and nothing else: kUsage for a size below 1, or another aspect ratio and Fit::kNone; kOutOfMemory.
  ImageFit(int source_width, int source_height, const Layout& layout, Fit fit);
  ~ImageFit();

  // target: uint8 [H,W,3], RGB; bit for bit what Pipeline::run gives the engines. The source is of the source size and
  // in host memory.
  void image(const Image& source, unsigned char* target) noexcept;
  // The rectangle of the engines' image that shows something of the source, in pixels; zero outside.
  void target(int& left, int& top, int& width, int& height) const;
  // Of x and y: a point of the source lies at scale * point + shift in the engines' image; pixel edges lie at integers
  // in both.
  void scale_shift(double scale[2], double shift[2]) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace page4d
