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

constexpr uint8_t kWhite = 255;
constexpr int64_t kTallest = 100;  // times its width: VGGT's code scales a photo whole before it cuts rows
constexpr char kToAnySize[] = "Fit::kStretch, kCrop or kPad";

std::string size_text(int64_t width, int64_t height) { return std::to_string(width) + "x" + std::to_string(height); }

// Python's true division of integers, which are below 2^53 here.
double quotient(int64_t numerator, int64_t denominator) {
  return static_cast<double>(numerator) / static_cast<double>(denominator);
}

// Python's round(): half to even.
int64_t rounded(double value) { return static_cast<int64_t>(value - std::remainder(value, 1.0)); }

// In the order of operations of VGGT's public code.
int64_t to_patches(int64_t side, double scale) {
  return rounded(static_cast<double>(side) * scale / static_cast<double>(Layout::kPatch)) * Layout::kPatch;
}

struct Size {
  int64_t width, height;
};

// What VGGT's public code scales a photo to, before it cuts rows off or adds white. target: pixels of the new width;
// with `pad`, of the new longer side.
Size scaled_as_vggt(const Size& source, int64_t target, bool pad) {
  Size scaled{target, 0};
  if (pad && source.height > source.width)
    scaled = {to_patches(source.width, quotient(target, source.height)), target};
  else
    scaled.height = to_patches(source.height, quotient(target, source.width));
  if (std::min(scaled.width, scaled.height) > 0 && scaled.height <= kTallest * target) return scaled;
  throw Error(Code::kUsage, "VGGT's public code cannot scale a photo of this aspect ratio")
      .got(size_text(source.width, source.height) + ", which would become " + size_text(scaled.width, scaled.height))
      .allowed("a patch of " + std::to_string(Layout::kPatch) + " pixels on each side, and at most " +
               std::to_string(kTallest) + " times as tall as wide")
      .hint(kToAnySize);
}

Placement published(const Size& source, const Layout& layout, bool pad) {
  const Size scaled = scaled_as_vggt(source, layout.W, pad);
  const int64_t rows = std::min(scaled.height, layout.W), needed = pad ? layout.W : rows;
  if (layout.H != needed) {
    throw Error(Code::kUsage, std::string("VGGT's public code brings ") + (pad ? "a photo" : "these frames") +
                                  " to another size than the engine's " + size_text(layout.W, layout.H) +
                                  " (width x height)")
        .got("frames of " + size_text(source.width, source.height))
        .allowed("an engine of " + size_text(layout.W, needed))
        .hint("page4d-export --height " + std::to_string(needed) + " --width " + std::to_string(layout.W) + ", or " +
              kToAnySize);
  }
  const int64_t rows_cut = (scaled.height - rows) / 2;
  const double per_row = quotient(source.height, scaled.height);
  return {0.0,
          static_cast<double>(rows_cut) * per_row,
          static_cast<double>(source.width),
          static_cast<double>(rows_cut + rows) * per_row,
          static_cast<int>((layout.W - scaled.width) / 2),
          static_cast<int>((layout.H - rows) / 2),
          static_cast<int>(scaled.width),
          static_cast<int>(rows),
          kWhite,
          static_cast<int>(scaled.height)};
}

// To the nearest multiple of a patch, of two equally near ones to the higher; 1 below half a patch.
int64_t to_nearest_patches(int64_t side) {
  return std::max<int64_t>(1, (side + Layout::kPatch / 2) / Layout::kPatch * Layout::kPatch);
}

constexpr int64_t kProcessRes = 504;  // pixels of the longer side in Depth Anything 3's public code

// As Depth Anything 3's public code: first the longer side to `side`, then both to patches.
Size scaled_longer_side(const Size& source, int64_t side) {
  const int64_t longer = std::max(source.width, source.height);
  if (longer == side) return source;
  const double scale = quotient(side, longer);
  return {std::max<int64_t>(1, rounded(static_cast<double>(source.width) * scale)),
          std::max<int64_t>(1, rounded(static_cast<double>(source.height) * scale))};
}

Placement published_da3(const Size& source, const Layout& layout) {
  for (const int64_t side : {kProcessRes, std::max(layout.W, layout.H)}) {
    const Size first = scaled_longer_side(source, side);
    if (to_nearest_patches(first.width) != layout.W || to_nearest_patches(first.height) != layout.H) continue;
    Placement placement{0.0, 0.0, static_cast<double>(source.width), static_cast<double>(source.height),
                        0,   0,   static_cast<int>(layout.W),        static_cast<int>(layout.H)};
    placement.first_width = static_cast<int>(first.width), placement.first_height = static_cast<int>(first.height);
    return placement;
  }
  const Size first = scaled_longer_side(source, kProcessRes);
  const int64_t width = to_nearest_patches(first.width), height = to_nearest_patches(first.height);
  const std::string frames = "frames of " + size_text(source.width, source.height);
  if (std::min(width, height) < Layout::kPatch) {
    throw Error(Code::kUsage, "Depth Anything 3's public code cannot scale frames of this aspect ratio")
        .got(frames + ", of which " + size_text(width, height) + " would be left")
        .allowed("a patch of " + std::to_string(Layout::kPatch) + " pixels on each side, where the longer one has " +
                 std::to_string(kProcessRes))
        .hint(kToAnySize);
  }
  throw Error(Code::kUsage, "Depth Anything 3's public code brings these frames to another size than the engine's " +
                                size_text(layout.W, layout.H) + " (width x height)")
      .got(frames)
      .allowed("an engine of " + size_text(width, height))
      .hint("page4d-export --height " + std::to_string(height) + " --width " + std::to_string(width) + ", or " +
            kToAnySize);
}

Resample resample_of(int source_width, int source_height, const Placement& p) {
  Resample::Box box{static_cast<float>(p.left), static_cast<float>(p.top), static_cast<float>(p.right),
                    static_cast<float>(p.bottom)};
  if (p.scaled_height == 0) return {source_width, source_height, box, p.width, {p.height, 0, p.height}};
  box.top = 0, box.bottom = static_cast<float>(source_height);
  const int cut = (p.scaled_height - p.height) / 2;
  return {source_width, source_height, box, p.width, {p.scaled_height, cut, cut + p.height}};
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
          .hint(kToAnySize);
    }
    return whole;
  }
  if (mode == Fit::kStretch) return whole;
  if (mode == Fit::kPublished || mode == Fit::kPublishedPad)
    return published({width, height}, layout, mode == Fit::kPublishedPad);
  if (mode == Fit::kPublishedDa3) return published_da3({width, height}, layout);
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
  placement.width = wider ? all_x : static_cast<int>(std::max<int64_t>(1, rounded(quotient(width * H, height))));
  placement.height = wider ? static_cast<int>(std::max<int64_t>(1, rounded(quotient(height * W, width)))) : all_y;
  placement.x = (all_x - placement.width) / 2;
  placement.y = (all_y - placement.height) / 2;
  return placement;
}

Fitter::Fitter(int source_width, int source_height, const Layout& layout, Fit mode)
    : width_(source_width),
      height_(source_height),
      layout_(layout),
      placement_(Placement::choose(source_width, source_height, layout, mode)),
      rows_(
          overlap(layout.h(), height_, placement_.scale_y(), placement_.shift_y(), placement_.top, placement_.bottom)),
      columns_(
          overlap(layout.w(), width_, placement_.scale_x(), placement_.shift_x(), placement_.left, placement_.right)),
      sums_(static_cast<size_t>(source_width)) {
  const int first_width = placement_.first_width, first_height = placement_.first_height;
  if (first_width == 0) {
    resample_.push_back(resample_of(source_width, source_height, placement_));
    return;
  }
  passes_.emplace_back(source_width, source_height, first_width, first_height);
  passes_.emplace_back(first_width, first_height, placement_.width, placement_.height);
  between_.resize(static_cast<size_t>(first_width) * static_cast<size_t>(first_height) * 3);
}

void Fitter::image(const Image& source, uint8_t* target) noexcept {
  if (!passes_.empty()) {
    passes_[0].run(source, between_.data());
    Image first;
    first.data = between_.data(), first.width = placement_.first_width, first.height = placement_.first_height;
    passes_[1].run(first, target);
    return;
  }
  const size_t pitch = static_cast<size_t>(layout_.W) * 3;
  if (placement_.width != layout_.W || placement_.height != layout_.H)
    std::memset(target, placement_.ground, static_cast<size_t>(layout_.image_bytes()));
  resample_.front().run(
      source, target + static_cast<size_t>(placement_.y) * pitch + static_cast<size_t>(placement_.x) * 3, pitch);
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
