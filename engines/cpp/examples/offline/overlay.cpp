#include "overlay.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace offline {
namespace {

constexpr int kLevels = 256;
constexpr double kOpacity = 0.8, kClear = 0.4,
                 kFull = 0.8;  // none of the frame is hidden up to kClear, kOpacity of it from kFull on
constexpr uint8_t kNotANumber[3] = {0, 255, 255};
constexpr double kAnchors[5][3] = {
    {24, 22, 84}, {92, 28, 136}, {178, 44, 118}, {240, 112, 60}, {255, 222, 74}};  // at 0, 0.25, .. 1

// By probability * 255.
struct Tables {
  std::array<float, kLevels> share;
  std::array<std::array<float, 3>, kLevels> colour;
};

Tables make_tables() {
  Tables tables{};
  constexpr double kStep = 1.0 / (kLevels - 1);
  for (int i = 0; i < kLevels; ++i) {
    const double p = i == kLevels - 1 ? 1.0 : i * kStep;
    const double rise = std::clamp((p - kClear) / (kFull - kClear), 0.0, 1.0);
    const auto level = static_cast<size_t>(i);
    tables.share[level] = static_cast<float>(kOpacity * (rise * rise) * (3 - 2 * rise));
    const auto anchor = std::min<size_t>(static_cast<size_t>(p / 0.25), 3);
    for (size_t c = 0; c < 3; ++c) {
      const double slope = (kAnchors[anchor + 1][c] - kAnchors[anchor][c]) / 0.25;
      tables.colour[level][c] =
          static_cast<float>(slope * (p - 0.25 * static_cast<double>(anchor)) + kAnchors[anchor][c]);
    }
  }
  return tables;
}

// Which source pixels make a target pixel, and how much of each.
struct Share {
  int first;
  std::vector<double> weights;
};

std::vector<Share> shares(int source, int target) {
  std::vector<Share> result;
  const double scale = static_cast<double>(source) / target, stretch = std::max(scale, 1.0), support = stretch,
               inverse = 1.0 / stretch;
  for (int i = 0; i < target; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0),
              last = std::min(static_cast<int>(centre + support + 0.5), source);
    Share share{first, {}};
    double sum = 0;
    for (int j = 0; j < last - first; ++j) {
      const double distance = std::abs((j + first - centre + 0.5) * inverse);
      share.weights.push_back(distance < 1 ? 1 - distance : 0);
      sum += share.weights.back();
    }
    if (sum != 0) {
      for (double& weight : share.weights) weight /= sum;
    }
    result.push_back(std::move(share));
  }
  return result;
}

// The source pixel in the middle of each target pixel; steps are added up as Pillow does, since it rounds as that does.
std::vector<int> nearest(int source, int target) {
  std::vector<int> result;
  const double step = static_cast<double>(source) / target;
  double at = step * 0.5;
  for (int i = 0; i < target; ++i, at += step) result.push_back(std::min(static_cast<int>(at), source - 1));
  return result;
}

}  // namespace

std::vector<float> resize_bilinear(const float* source, int h, int w, int H, int W) {
  const auto width = static_cast<size_t>(W);
  std::vector<float> wide(static_cast<size_t>(h) * width), result(static_cast<size_t>(H) * width);
  const std::vector<Share> across = shares(w, W), down = shares(h, H);
  for (int y = 0; y < h; ++y) {
    const float* row = source + static_cast<ptrdiff_t>(y) * w;
    for (size_t x = 0; x < width; ++x) {
      double sum = 0;
      for (size_t j = 0; j < across[x].weights.size(); ++j)
        sum += static_cast<double>(row[static_cast<size_t>(across[x].first) + j]) * across[x].weights[j];
      wide[static_cast<size_t>(y) * width + x] = static_cast<float>(sum);
    }
  }
  for (size_t y = 0; y < down.size(); ++y) {
    const float* rows = &wide[static_cast<size_t>(down[y].first) * width];
    for (size_t x = 0; x < width; ++x) {
      double sum = 0;
      for (size_t j = 0; j < down[y].weights.size(); ++j)
        sum += static_cast<double>(rows[j * width + x]) * down[y].weights[j];
      result[y * width + x] = static_cast<float>(sum);
    }
  }
  return result;
}

std::vector<uint8_t> overlay(const uint8_t* image, int H, int W, const float* mask, int h, int w) {
  static const Tables tables = make_tables();
  const size_t patches = static_cast<size_t>(h) * static_cast<size_t>(w);
  std::vector<float> known(patches);
  std::transform(mask, mask + patches, known.begin(),
                 [](float value) { return std::isnan(value) ? 0.0F : std::clamp(value, 0.0F, 1.0F); });
  const std::vector<float> smooth = resize_bilinear(known.data(), h, w, H, W);
  std::vector<uint8_t> result(smooth.size() * 3);
  for (size_t i = 0; i < smooth.size(); ++i) {
    const auto level = static_cast<uint8_t>(smooth[i] * 255.0F + 0.5F);
    for (size_t c = 0; c < 3; ++c) {
      const auto pixel = static_cast<float>(image[3 * i + c]);
      result[3 * i + c] = static_cast<uint8_t>(pixel + tables.share[level] * (tables.colour[level][c] - pixel) + 0.5F);
    }
  }
  if (std::none_of(mask, mask + patches, [](float value) { return std::isnan(value); })) return result;
  const std::vector<int> columns = nearest(w, W), rows = nearest(h, H);
  uint8_t* pixel = result.data();
  for (int row : rows) {
    for (int column : columns) {
      if (std::isnan(mask[static_cast<ptrdiff_t>(row) * w + column])) std::copy(kNotANumber, kNotANumber + 3, pixel);
      pixel += 3;
    }
  }
  return result;
}

}  // namespace offline
