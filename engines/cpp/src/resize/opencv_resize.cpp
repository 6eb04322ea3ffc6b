#include "resize/opencv_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pixels/rgb_row.h"

namespace page4d {
namespace {

constexpr int kChannels = 3;
constexpr int kCubicTaps = 4;
constexpr int kFixedPoint = 2048;  // what OpenCV multiplies a cubic's weights with, to have them in integers
constexpr size_t kLanes = 8;  // numbers of a row that OpenCV's vector code takes at once; the rest goes by integers
constexpr double kLeastShare = 1e-3;  // of a source pixel; less is left out

// source / target as OpenCV computes it, which is not the same to the last bit.
double scale_of(int source, int target) { return 1.0 / (static_cast<double>(target) / static_cast<double>(source)); }

// To the nearest integer, a half to the even one.
uint8_t byte_of(float value) { return static_cast<uint8_t>(std::clamp(std::nearbyint(value), 0.0F, 255.0F)); }

size_t at(int index) { return static_cast<size_t>(index); }

}  // namespace

OpencvResize::Taps OpencvResize::area_taps(int source, int target) {
  const double scale = scale_of(source, target);
  Taps taps;
  taps.most = static_cast<int>(std::ceil(scale)) + 2;
  taps.weights.assign(at(target) * at(taps.most), 0.0F);
  for (int pixel = 0; pixel < target; ++pixel) {
    const double begin = pixel * scale, end = begin + scale, cell = std::min(scale, source - begin);
    const int last = std::min(static_cast<int>(std::floor(end)), source - 1);
    const int whole = std::min(static_cast<int>(std::ceil(begin)), last);
    float* weights = taps.weights.data() + at(pixel) * at(taps.most);
    const bool before = whole - begin > kLeastShare;
    taps.first.push_back(before ? whole - 1 : whole);
    if (before) *weights++ = static_cast<float>((whole - begin) / cell);
    for (int inner = whole; inner < last; ++inner) *weights++ = static_cast<float>(1.0 / cell);
    if (end - last > kLeastShare) *weights = static_cast<float>(std::min(std::min(end - last, 1.0), cell) / cell);
  }
  return taps;
}

OpencvResize::Taps OpencvResize::cubic_taps(int source, int target) {
  constexpr float a = -0.75F;
  const double scale = scale_of(source, target);
  Taps taps;
  taps.most = kCubicTaps;
  for (int pixel = 0; pixel < target; ++pixel) {
    const auto centre = static_cast<float>((pixel + 0.5) * scale - 0.5);
    const float floor = std::floor(centre), x = centre - floor;
    taps.first.push_back(static_cast<int>(floor) - 1);
    float weights[kCubicTaps];
    weights[0] = ((a * (x + 1.0F) - 5.0F * a) * (x + 1.0F) + 8.0F * a) * (x + 1.0F) - 4.0F * a;
    weights[1] = ((a + 2.0F) * x - (a + 3.0F)) * x * x + 1.0F;
    weights[2] = ((a + 2.0F) * (1.0F - x) - (a + 3.0F)) * (1.0F - x) * (1.0F - x) + 1.0F;
    weights[3] = 1.0F - weights[0] - weights[1] - weights[2];
    for (const float weight : weights) taps.weights.push_back(std::nearbyint(weight * static_cast<float>(kFixedPoint)));
  }
  return taps;
}

OpencvResize::OpencvResize(int source_width, int source_height, int width, int height)
    : source_width_(source_width), source_height_(source_height), width_(width), height_(height) {
  row_.resize(at(source_width) * kChannels);
  const size_t numbers = at(width) * kChannels;
  if (width > source_width || height > source_height) {
    across_ = cubic_taps(source_width, width), down_ = cubic_taps(source_height, height);
    between_.resize(at(source_height) * numbers);
    sums_.resize(numbers);
  } else if (source_width % width == 0 && source_height % height == 0) {
    blocks_.resize(numbers);
  } else {
    across_ = area_taps(source_width, width), down_ = area_taps(source_height, height);
    row_sums_.resize(numbers), sums_.resize(numbers);
  }
}

void OpencvResize::run(const Image& source, uint8_t* target) noexcept {
  if (width_ == source_width_ && height_ == source_height_)
    copy(source, target);
  else if (!between_.empty())
    interpolate(source, target);
  else if (!blocks_.empty())
    average_blocks(source, target);
  else
    shrink(source, target);
}

void OpencvResize::read_row(const Image& source, int y) noexcept { rgb_row(source, y, row_.data()); }

void OpencvResize::copy(const Image& source, uint8_t* target) noexcept {
  for (int y = 0; y < height_; ++y, target += row_.size()) rgb_row(source, y, target);
}

void OpencvResize::average_blocks(const Image& source, uint8_t* target) noexcept {
  const int down = source_height_ / height_, across = source_width_ / width_;
  const float share = 1.0F / static_cast<float>(down * across);
  for (int y = 0; y < height_; ++y) {
    std::fill(blocks_.begin(), blocks_.end(), 0);
    for (int row = 0; row < down; ++row) {
      read_row(source, y * down + row);
      const uint8_t* pixel = row_.data();
      for (int x = 0; x < width_; ++x)
        for (int column = 0; column < across; ++column)
          for (int c = 0; c < kChannels; ++c) blocks_[at(x * kChannels + c)] += *pixel++;
    }
    for (const int32_t sum : blocks_)
      *target++ =
          down == 2 && across == 2 ? static_cast<uint8_t>((sum + 2) >> 2) : byte_of(static_cast<float>(sum) * share);
  }
}

void OpencvResize::shrink(const Image& source, uint8_t* target) noexcept {
  int summed = -1;  // the source row that is in row_sums_: the last of one row of the result is the first of the next
  for (int y = 0; y < height_; ++y) {
    std::fill(sums_.begin(), sums_.end(), 0.0F);
    for (int tap = 0; tap < down_.most; ++tap) {
      const float weight = down_.weights_of(y)[tap];
      if (weight == 0) continue;
      const int row = down_.first_of(y) + tap;
      if (row != summed) {
        read_row(source, row);
        for (int x = 0; x < width_; ++x) {
          float sums[kChannels] = {};
          const float* weights = across_.weights_of(x);
          const uint8_t* pixel = row_.data() + at(across_.first_of(x)) * kChannels;
          for (int i = 0; i < across_.most && weights[i] != 0; ++i, pixel += kChannels)
            for (int c = 0; c < kChannels; ++c) sums[c] += static_cast<float>(pixel[c]) * weights[i];
          std::copy_n(sums, kChannels, row_sums_.data() + at(x) * kChannels);
        }
        summed = row;
      }
      for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += weight * row_sums_[i];
    }
    target = std::transform(sums_.begin(), sums_.end(), target, byte_of);
  }
}

void OpencvResize::interpolate(const Image& source, uint8_t* target) noexcept {
  const size_t numbers = at(width_) * kChannels, vectors = numbers / kLanes * kLanes;
  constexpr float unit = 1.0F / static_cast<float>(kFixedPoint * kFixedPoint);
  int32_t* sum = between_.data();
  for (int y = 0; y < source_height_; ++y) {
    read_row(source, y);
    for (int x = 0; x < width_; ++x)
      for (int c = 0; c < kChannels; ++c, ++sum) {
        *sum = 0;
        for (int tap = 0; tap < kCubicTaps; ++tap) {
          const int column = std::clamp(across_.first_of(x) + tap, 0, source_width_ - 1);
          *sum += static_cast<int32_t>(across_.weights_of(x)[tap]) * row_[at(column * kChannels + c)];
        }
      }
  }
  for (int y = 0; y < height_; ++y) {
    const int32_t* rows[kCubicTaps];
    for (int tap = 0; tap < kCubicTaps; ++tap)
      rows[tap] = between_.data() + at(std::clamp(down_.first_of(y) + tap, 0, source_height_ - 1)) * numbers;
    const float* weights = down_.weights_of(y);
    // from the last tap to the first, as OpenCV sums up
    std::fill(sums_.begin(), sums_.end(), 0.0F);
    for (int tap = kCubicTaps; tap-- > 0;)
      for (size_t i = 0; i < vectors; ++i) sums_[i] += static_cast<float>(rows[tap][i]) * (weights[tap] * unit);
    for (size_t i = 0; i < vectors; ++i) *target++ = byte_of(sums_[i]);
    for (size_t i = vectors; i < numbers; ++i) {
      int64_t exact = kFixedPoint * kFixedPoint / 2;
      for (int tap = 0; tap < kCubicTaps; ++tap) exact += rows[tap][i] * static_cast<int64_t>(weights[tap]);
      *target++ = static_cast<uint8_t>(std::clamp<int64_t>(exact >> 22, 0, 255));  // by kFixedPoint^2
    }
  }
}

}  // namespace page4d
