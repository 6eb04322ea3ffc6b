#include "boundary.h"
#include "clip/fit.h"
#include "page4d/fit.h"

namespace page4d {

class ImageFit::Impl {
 public:
  Impl(int width, int height, const Layout& layout, Fit fit)
      : placement(Placement::choose(width, height, layout, fit)), fitter(width, height, layout, fit) {}

  Placement placement;
  Fitter fitter;
};

ImageFit::ImageFit(int source_width, int source_height, const Layout& layout, Fit fit)
    : impl_(only_errors([&] { return std::make_unique<Impl>(source_width, source_height, layout, fit); })) {}

ImageFit::~ImageFit() = default;

void ImageFit::image(const Image& source, unsigned char* target) noexcept { impl_->fitter.image(source, target); }

void ImageFit::target(int& left, int& top, int& width, int& height) const {
  const Placement& p = impl_->placement;
  left = p.x, top = p.y, width = p.width, height = p.height;
}

void ImageFit::scale_shift(double scale[2], double shift[2]) const {
  const Placement& p = impl_->placement;
  scale[0] = p.scale_x(), scale[1] = p.scale_y();
  shift[0] = p.shift_x(), shift[1] = p.shift_y();
}

}  // namespace page4d
