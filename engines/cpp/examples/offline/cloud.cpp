#include "cloud.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "output_folder.h"

namespace offline {
namespace {

// Whether a neighbour of a pixel, on the image and with a finite depth, has another depth by more than a share of the
// pixel's.
bool flies(const View& view, int y, int x, float share) {
  const auto depth = [&view](int row, int column) {
    return view.points[(static_cast<size_t>(row) * static_cast<size_t>(view.W) + static_cast<size_t>(column)) * 3 + 2];
  };
  const float own = depth(y, x);
  float highest = own, lowest = own;
  for (int row = std::max(y - 1, 0); row <= std::min(y + 1, view.H - 1); ++row) {
    for (int column = std::max(x - 1, 0); column <= std::min(x + 1, view.W - 1); ++column) {
      const float other = depth(row, column);
      if (!std::isfinite(other)) continue;
      highest = std::max(highest, other);
      lowest = std::min(lowest, other);
    }
  }
  return std::max(highest - own, own - lowest) > share * own;
}

}  // namespace

float probability(float logit) {
  if (std::isnan(logit)) return logit;
  return 1.0F / (1.0F + std::exp(-std::clamp(logit, -80.0F, 80.0F)));  // clipped: the exponential of 89 is no float
}

void Cloud::add(const View& view, float min_confidence, float edges) {
  const size_t count = static_cast<size_t>(view.H) * static_cast<size_t>(view.W);
  std::vector<float> sure(count);
  std::transform(view.confidence, view.confidence + count, sure.begin(), probability);
  std::vector<char> kept(count), flying(count);
  size_t kept_count = 0, flying_count = 0;
  for (size_t i = 0; i < count; ++i) {
    const float* point = view.points + 3 * i;
    if (!(std::isfinite(point[0]) && std::isfinite(point[1]) && std::isfinite(point[2]) && point[2] > 0 &&
          sure[i] >= min_confidence))
      continue;
    kept[i] = 1;
    flying[i] = flies(view, static_cast<int>(i / static_cast<size_t>(view.W)),
                      static_cast<int>(i % static_cast<size_t>(view.W)), edges);
    kept_count += 1;
    flying_count += static_cast<size_t>(flying[i]);
  }
  const bool drop = static_cast<double>(flying_count) <= 0.5 * static_cast<double>(kept_count);
  for (size_t i = 0; i < count; ++i) {
    if (!kept[i] || (drop && flying[i])) continue;
    float world[3];
    for (size_t row = 0; row < 3; ++row) {
      double sum = 0;
      for (size_t k = 0; k < 3; ++k) sum += static_cast<double>(view.points[3 * i + k]) * view.camera[4 * row + k];
      const double wide = sum + view.camera[4 * row + 3];
      world[row] = std::abs(wide) > 3.4028235677973366e38
                       ? INFINITY
                       : static_cast<float>(wide);  // half a step above the largest float
    }
    if (!(std::isfinite(world[0]) && std::isfinite(world[1]) && std::isfinite(world[2]))) continue;
    points.insert(points.end(), world, world + 3);
    colours.insert(colours.end(), view.image + 3 * i, view.image + 3 * i + 3);
    confidence.push_back(sure[i]);
  }
}

void write_ply(const std::filesystem::path& path, const Cloud& cloud) {
  std::string text = "ply\nformat binary_little_endian 1.0\nelement vertex " + std::to_string(cloud.size()) + "\n";
  for (const char* property :
       {"float x", "float y", "float z", "uchar red", "uchar green", "uchar blue", "float confidence"}) {
    text += std::string("property ") + property + "\n";
  }
  text += "end_header\n";
  constexpr size_t kVertex = 19;
  std::vector<char> vertices(kVertex * cloud.size());
  for (size_t i = 0; i < cloud.size(); ++i) {
    char* target = vertices.data() + kVertex * i;
    std::memcpy(target, &cloud.points[3 * i], 12);
    std::memcpy(target + 12, &cloud.colours[3 * i], 3);
    std::memcpy(target + 15, &cloud.confidence[i], 4);
  }
  OutputFile file(path);
  file.write(text.data(), text.size());
  file.write(vertices.data(), vertices.size());
  file.close();
}

}  // namespace offline
