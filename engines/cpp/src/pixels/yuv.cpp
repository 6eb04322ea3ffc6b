#include "pixels/yuv.h"

#include <algorithm>

#include "pixels/channels.h"
#include "pixels/for_each_cpu.h"

namespace page4d {
namespace {

constexpr int kShift = 20;
constexpr int32_t kLuma = 1220542, kVToRed = 1673527, kVToGreen = -852492, kUToGreen = -409993, kUToBlue = 2116026;
constexpr int kBlack = 16, kGrey = 128;
constexpr int kYuvPixels = Channels::kPixels;

uint8_t byte_of(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kShift, 0, 255)); }

// Y of every pixel, U and V of every pair.
struct Samples {
  uint8_t y[kYuvPixels], u[kYuvPixels / 2], v[kYuvPixels / 2];
};

inline __attribute__((always_inline)) void convert(const Samples& samples, Channels& channels) {
  int32_t red[kYuvPixels], green[kYuvPixels], blue[kYuvPixels];  // what U and V add
  for (int pair = 0; pair < kYuvPixels / 2; ++pair) {
    const int32_t u = samples.u[pair] - kGrey, v = samples.v[pair] - kGrey;
    constexpr int32_t half = 1 << (kShift - 1);
    red[2 * pair] = red[2 * pair + 1] = kVToRed * v + half;
    green[2 * pair] = green[2 * pair + 1] = kVToGreen * v + kUToGreen * u + half;
    blue[2 * pair] = blue[2 * pair + 1] = kUToBlue * u + half;
  }
  for (int i = 0; i < kYuvPixels; ++i) {
    const int32_t y = std::max(samples.y[i] - kBlack, 0) * kLuma;
    channels.red[i] = byte_of(y + red[i]);
    channels.green[i] = byte_of(y + green[i]);
    channels.blue[i] = byte_of(y + blue[i]);
  }
}

// kYStep: bytes from Y to the next; kPairStep: from U of a pair to U of the next.
template <int kYStep, int kPairStep>
inline __attribute__((always_inline)) void convert_row(const uint8_t* y, const uint8_t* u, const uint8_t* v, int width,
                                                       uint8_t* target) {
  Samples samples{};
  Channels channels;
  int x = 0;
  for (; x + kYuvPixels <= width; x += kYuvPixels) {
    for (int i = 0; i < kYuvPixels; ++i) samples.y[i] = y[(x + i) * kYStep];
    for (int i = 0; i < kYuvPixels / 2; ++i) {
      samples.u[i] = u[(x / 2 + i) * kPairStep];
      samples.v[i] = v[(x / 2 + i) * kPairStep];
    }
    convert(samples, channels);
    target = channels.write(target, kYuvPixels);
  }
  const int left = width - x;
  for (int i = 0; i < left; ++i) samples.y[i] = y[(x + i) * kYStep];
  for (int i = 0; i < left / 2; ++i) {
    samples.u[i] = u[(x / 2 + i) * kPairStep];
    samples.v[i] = v[(x / 2 + i) * kPairStep];
  }
  if (left == 0) return;
  convert(samples, channels);
  channels.write(target, left);
}

}  // namespace

PAGE4D_FOR_EACH_CPU void rgb_of_semiplanar(const uint8_t* luma, const uint8_t* chroma, bool v_first, int width,
                                           uint8_t* target) noexcept {
  convert_row<1, 2>(luma, chroma + (v_first ? 1 : 0), chroma + (v_first ? 0 : 1), width, target);
}

PAGE4D_FOR_EACH_CPU void rgb_of_packed(const uint8_t* row, bool luma_first, int width, uint8_t* target) noexcept {
  const uint8_t *luma = row + (luma_first ? 0 : 1), *chroma = row + (luma_first ? 1 : 0);
  convert_row<2, 4>(luma, chroma, chroma + 2, width, target);
}

}  // namespace page4d
