#include "clip/fit.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "page4d/error.h"

namespace page4d {
namespace {

std::string size_text(int64_t width, int64_t height) { return std::to_string(width) + "x" + std::to_string(height); }

// Python's true division of integers, which are below 2^53 here.
double quotient(int64_t numerator, int64_t denominator) {
  return static_cast<double>(numerator) / static_cast<double>(denominator);
}

// Python's round(): half to even.
int rounded(double value) { return static_cast<int>(value - std::remainder(value, 1.0)); }

Resample::Box box_of(const Placement& placement) {
  return {static_cast<float>(placement.left), static_cast<float>(placement.top), static_cast<float>(placement.right),
          static_cast<float>(placement.bottom)};
}

}  // namespace

Placement Placement::choose(int source_width, int source_height, const Layout& layout, Fit mode) {
  const int64_t width = source_width, height = source_height, W = layout.W, H = layout.H;
  if (width < 1 || height < 1)
    throw Error(Code::kUsage, "an image has no pixels").got(size_text(width, height)).allowed("1x1 or more");
  const int all_x = static_cast<int>(W), all_y = static_cast<int>(H);
  const Placement whole{0.0, 0.0, static_cast<double>(width), static_cast<double>(height), 0, 0, all_x, all_y};
  if (mode == Fit::kNone) {
    // |height * W / width - H| <= kPatch / 2 and the same for the other side, in integers
    const int64_t difference = 2 * std::abs(height * W - width * H);
    if (difference > Layout::kPatch * std::max(width, height)) {
      static_assert(Layout::kPatch % 2 == 0, "the message gives half a patch in whole pixels");
      throw Error(Code::kUsage, "the frames' aspect ratio is not the engine's " + size_text(W, H) + " (width x height)")
          .got("frames of " + size_text(width, height))
          .allowed("a size that scales to " + size_text(W, H) + ", up to " + std::to_string(Layout::kPatch / 2) +
                   " pixels on one side")
          .hint("Fit::kStretch, kCrop or kPad");
    }
    return whole;
  }
  if (mode == Fit::kStretch) return whole;
  const bool wider = width * H > height * W;
  Placement placement = whole;
  if (mode == Fit::kCrop) {
    const double used_x = wider ? quotient(height * W, H) : whole.right,
                 used_y = wider ? whole.bottom : quotient(width * H, W);
    placement.left = (whole.right - used_x) / 2;
    placement.top = (whole.bottom - used_y) / 2;
    placement.right = whole.right - placement.left;
    placement.bottom = whole.bottom - placement.top;
    return placement;
  }
  placement.width = wider ? all_x : std::max(1, rounded(quotient(width * H, height)));
  placement.height = wider ? std::max(1, rounded(quotient(height * W, width))) : all_y;
  placement.x = (all_x - placement.width) / 2;
  placement.y = (all_y - placement.height) / 2;
  return placement;
}

Fitter::Fitter(int source_width, int source_height, const Layout& layout, Fit mode)
    : width_(source_width),
      height_(source_height),
      layout_(layout),
      placement_(Placement::choose(source_width, source_height, layout, mode)),
      resample_(source_width, source_height, box_of(placement_), placement_.width, placement_.height),
      rows_(
          overlap(layout.h(), height_, placement_.scale_y(), placement_.shift_y(), placement_.top, placement_.bottom)),
      columns_(
          overlap(layout.w(), width_, placement_.scale_x(), placement_.shift_x(), placement_.left, placement_.right)),
      sums_(static_cast<size_t>(source_width)) {}

void Fitter::image(const Image& source, uint8_t* target) noexcept {
  const size_t pitch = static_cast<size_t>(layout_.W) * 3;
  if (placement_.width != layout_.W || placement_.height != layout_.H)
    std::memset(target, 0, static_cast<size_t>(layout_.image_bytes()));
  resample_.run(source, target + static_cast<size_t>(placement_.y) * pitch + static_cast<size_t>(placement_.x) * 3,
                pitch);
}

void Fitter::patch_mean(const Image& source, float* target) noexcept {
  const size_t width = sums_.size();
  for (const Shares& row : rows_) {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    const uint8_t* pixels =
        static_cast<const uint8_t*>(source.data) + static_cast<size_t>(row.first) * source.row_bytes();
    for (const double share : row.share) {
      for (size_t x = 0; x < width; ++x) sums_[x] += share * pixels[x];
      pixels += source.row_bytes();
    }
    for (const Shares& column : columns_) {
      double sum = 0;
      for (size_t i = 0; i < column.share.size(); ++i)
        sum += sums_[static_cast<size_t>(column.first) + i] * column.share[i];
      *target++ = static_cast<float>(sum / 255);
    }
  }
}

Camera Fitter::camera(const Camera& source) const {
  if (source.width != width_ || source.height != height_)
    throw Error(Code::kUsage, "the camera has another size than the frames")
        .got(size_text(source.width, source.height))
        .allowed(size_text(width_, height_));
  Camera fitted = source;
  fitted.width = static_cast<int>(layout_.W);
  fitted.height = static_cast<int>(layout_.H);
  for (int i = 0; i < 3; ++i) {
    fitted.K[i] *= placement_.scale_x();
    fitted.K[3 + i] *= placement_.scale_y();
  }
  fitted.K[2] += placement_.shift_x();
  fitted.K[5] += placement_.shift_y();
  return fitted;
}

std::vector<Fitter::Shares> Fitter::overlap(int64_t patches, int pixels, double scale, double shift, double low,
                                            double high) {
  const auto edge = [&](int64_t patch) {
    return std::min(std::max((static_cast<double>(patch * Layout::kPatch) - shift) / scale, low), high);
  };
  std::vector<Shares> all;
  for (int64_t patch = 0; patch < patches; ++patch) {
    const double begin = edge(patch), end = edge(patch + 1);
    Shares shares;
    shares.first = std::min(static_cast<int>(begin), pixels);
    for (int pixel = shares.first; pixel < pixels && pixel < end; ++pixel)
      shares.share.push_back(std::max(std::min(end, pixel + 1.0) - std::max(begin, static_cast<double>(pixel)), 0.0) *
                             scale / static_cast<double>(Layout::kPatch));
    all.push_back(std::move(shares));
  }
  return all;
}

}  // namespace page4d
