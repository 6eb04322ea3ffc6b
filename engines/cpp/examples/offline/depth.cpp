#include "depth.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "image_file.h"
#include "output_folder.h"

namespace offline {
namespace {

constexpr double kFull = 65535, kUsed = 60000,
                 kShare = 99.9 / 100;  // the few farthest depths have room above what the scale is chosen for

bool has_value(float depth) { return std::isfinite(depth) && depth > 0; }

}  // namespace

double depth_scale(const std::vector<float>& depth) {
  std::vector<double> known;
  for (float value : depth) {
    if (has_value(value)) known.push_back(static_cast<double>(value));
  }
  if (known.empty()) return 1;
  std::sort(known.begin(), known.end());
  const double place = static_cast<double>(known.size() - 1) * kShare, below = std::floor(place), t = place - below;
  const double a = known[static_cast<size_t>(below)],
               b = known[std::min(static_cast<size_t>(below) + 1, known.size() - 1)];
  const double scale = (t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t)) / kUsed;
  return scale > 0 ? scale : 1;
}

void write_depth(const std::filesystem::path& path, const float* depth, int H, int W, double scale) {
  std::vector<uint16_t> steps(static_cast<size_t>(H) * static_cast<size_t>(W));
  std::transform(depth, depth + steps.size(), steps.begin(), [scale](float value) {
    return has_value(value)
               ? static_cast<uint16_t>(std::clamp(std::nearbyint(static_cast<double>(value) / scale), 1.0, kFull))
               : uint16_t{0};
  });
  write_file(path, encode_png(W, H, steps.data()));
}

}  // namespace offline
