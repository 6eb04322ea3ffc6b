#include "resize/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "pixels/for_each_cpu.h"
#include "pixels/rgb_row.h"

namespace page4d {
namespace {

constexpr int kChannels = 3;
constexpr int kStripRows = 16;                  // of the source that go through the horizontal pass together
constexpr int kLanes = kStripRows * kChannels;  // bytes that are computed together, in either pass: whole vectors
// bits after the point: 8 more hold the result, 2 more are for weights below 0 and sums above 1
constexpr int kPrecision = 32 - 8 - 2;
constexpr double kSupport = 2.0;  // of the cubic, in pixels to each side

// Keys' cubic, a = -0.5, in Pillow's order of operations.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// kLanes weighted sums, as bytes; the taps lie `stride` bytes apart.
inline __attribute__((always_inline)) void weigh(const uint8_t* taps, size_t stride, const int32_t* weights, int count,
                                                 uint8_t* result) {
  int32_t sums[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) sums[lane] = 1 << (kPrecision - 1);
  for (int tap = 0; tap < count; ++tap, taps += stride) {
    const int32_t weight = weights[tap];
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += taps[lane] * weight;
  }
  for (int lane = 0; lane < kLanes; ++lane)
    result[lane] = static_cast<uint8_t>(std::clamp(sums[lane] >> kPrecision, 0, 255));
}

template <int kStep>
inline __attribute__((always_inline)) void copy_pixel(const uint8_t* source, uint8_t* target) {
  if constexpr (kStep == 1)
    std::memset(target, *source, kChannels);
  else
    std::memcpy(target, source, kChannels);
}

// Whether a pixel's bytes are its channels, in whatever order: the order is put right in the result, which is smaller.
bool has_channels(PixelFormat format) { return format <= PixelFormat::kMono8; }

// strip: uint8 [columns, kStripRows, kChannels]
template <int kStep>
void fill_strip(const uint8_t* const (&rows)[kStripRows], int columns, uint8_t* strip) {
  for (int x = 0; x < columns; ++x)
    for (int row = 0; row < kStripRows; ++row, strip += kChannels)
      copy_pixel<kStep>(rows[row] + static_cast<ptrdiff_t>(x) * kStep, strip);
}

// rows: the first of `count` rows of the target's width, `pitch` bytes apart.
PAGE4D_FOR_EACH_CPU void horizontal(const Resample::Axis& axis, const uint8_t* strip, uint8_t* rows, size_t pitch,
                                    int count) {
  for (int x = 0; x < axis.size; ++x) {
    uint8_t pixels[kLanes];
    const ptrdiff_t first = axis.first[static_cast<size_t>(x)] - axis.begin();
    weigh(strip + first * kLanes, kLanes, axis.weights_of(x), axis.taps[static_cast<size_t>(x)], pixels);
    for (int row = 0; row < count; ++row)
      std::memcpy(rows + static_cast<size_t>(row) * pitch + static_cast<ptrdiff_t>(x) * kChannels,
                  pixels + row * kChannels, kChannels);
  }
}

// One row of the target from the first of its source rows; those are filled up to a multiple of kLanes.
PAGE4D_FOR_EACH_CPU void vertical(const uint8_t* rows, size_t pitch, const int32_t* weights, int taps, uint8_t* target,
                                  size_t bytes) {
  for (size_t at = 0; at < bytes; at += kLanes) {
    uint8_t result[kLanes];
    weigh(rows + at, pitch, weights, taps, result);
    std::memcpy(target + at, result, std::min<size_t>(kLanes, bytes - at));
  }
}

}  // namespace

Resample::Axis::Axis(int source_size, float low, float high, int scaled, int from, int until)
    : size(until - from), from(from) {
  identity = scaled == source_size && low == 0.0F && high == static_cast<float>(scaled);
  const double scale = static_cast<double>(high - low) / scaled;  // the difference is a float
  const double stretch = std::max(scale, 1.0);
  const double support = kSupport * stretch;
  most = static_cast<int>(std::ceil(support)) * 2 + 1;
  first.resize(static_cast<size_t>(size));
  taps.resize(static_cast<size_t>(size));
  weights.resize(static_cast<size_t>(size) * static_cast<size_t>(most));
  std::vector<double> exact(static_cast<size_t>(most));
  for (int pixel = 0; pixel < size; ++pixel) {
    const double centre = low + (from + pixel + 0.5) * scale;
    const int begin = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int count = std::min(static_cast<int>(centre + support + 0.5), source_size) - begin;
    double sum = 0;
    for (int tap = 0; tap < count; ++tap)
      sum += exact[static_cast<size_t>(tap)] = cubic((tap + begin - centre + 0.5) * (1.0 / stretch));
    for (int tap = 0; tap < count; ++tap) {
      const double weight = sum != 0 ? exact[static_cast<size_t>(tap)] / sum : exact[static_cast<size_t>(tap)];
      const double scaled = weight * (1 << kPrecision);
      weights[static_cast<size_t>(pixel) * static_cast<size_t>(most) + static_cast<size_t>(tap)] =
          static_cast<int32_t>(scaled + (weight < 0 ? -0.5 : 0.5));
    }
    first[static_cast<size_t>(pixel)] = begin;
    taps[static_cast<size_t>(pixel)] = count;
  }
}

Resample::Resample(int source_width, int source_height, const Box& box, int width, const Rows& rows)
    : across_(source_width, box.left, box.right, width, 0, width),
      down_(source_height, box.top, box.bottom, rows.height, rows.begin, rows.end) {
  rows_pitch_ = (static_cast<size_t>(width) * kChannels + kLanes - 1) / kLanes * kLanes;
  rows_.resize(static_cast<size_t>(down_.end() - down_.begin()) * rows_pitch_);
  if (across_.identity) return;
  strip_.resize(static_cast<size_t>(across_.end() - across_.begin()) * kLanes);
  converted_.resize(static_cast<size_t>(kStripRows) * static_cast<size_t>(source_width) * kChannels);
}

void Resample::run(const Image& source, uint8_t* target, size_t pitch) noexcept {
  const bool converts = !has_channels(source.format);
  const int step = converts ? kChannels : bytes_per_pixel(source.format);
  const auto kept = [&](int y) { return rows_.data() + static_cast<size_t>(y - down_.begin()) * rows_pitch_; };
  if (across_.identity) {
    for (int y = down_.begin(); y < down_.end(); ++y) rgb_row(source, y, kept(y));
  } else {
    const auto fill = step == 1 ? fill_strip<1> : step == 3 ? fill_strip<3> : fill_strip<4>;
    for (int y = down_.begin(); y < down_.end(); y += kStripRows) {
      const int count = std::min(kStripRows, down_.end() - y);
      const uint8_t* rows[kStripRows];  // below the last, the last again
      for (int row = 0; row < kStripRows; ++row) {
        const int used = std::min(row, count - 1);
        const uint8_t* first;
        if (converts) {
          uint8_t* converted = converted_.data() + static_cast<ptrdiff_t>(used) * source.width * kChannels;
          if (row == used) rgb_row(source, y + used, converted);
          first = converted;
        } else {
          first = static_cast<const uint8_t*>(source.data) + static_cast<size_t>(y + used) * source.row_bytes();
        }
        rows[row] = first + static_cast<ptrdiff_t>(across_.begin()) * step;
      }
      fill(rows, across_.end() - across_.begin(), strip_.data());
      horizontal(across_, strip_.data(), kept(y), rows_pitch_, count);
    }
  }
  const bool swapped =
      !across_.identity && (source.format == PixelFormat::kBgr8 || source.format == PixelFormat::kBgra8);
  const size_t bytes = static_cast<size_t>(across_.size) * kChannels;
  for (int y = 0; y < down_.size; ++y, target += pitch) {
    const size_t at = static_cast<size_t>(y);
    if (down_.identity)
      std::memcpy(target, kept(down_.from + y), bytes);
    else
      vertical(kept(down_.first[at]), rows_pitch_, down_.weights_of(y), down_.taps[at], target, bytes);
    // last, since no step before mixes channels
    for (size_t x = 0; swapped && x < bytes; x += kChannels) std::swap(target[x], target[x + 2]);
  }
}

}  // namespace page4d
