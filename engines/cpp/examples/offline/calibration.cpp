#include "calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "camera_file.h"
#include "output_folder.h"
#include "page4d/error.h"

namespace offline {
namespace {

constexpr size_t kFewest = 16;      // pixels; of fewer, chance makes a focal length
constexpr double kParallel = 1e-9;  // per pixel; rays closer together than this have no perspective
constexpr int kRounds = 3;          // refits
constexpr double kOutlying = 3.0;   // robust standard deviations that a pixel may be off to take part in one

// Of a pixel along one axis: where it is from the middle, x/z or y/z of its point, and how much it counts.
struct Sample {
  double offset, slope, weight;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

// Least absolute deviations of a line through the origin.
double weighted_median(const std::vector<Sample>& samples) {
  std::vector<std::pair<double, double>> ratios;
  for (const Sample& sample : samples)
    ratios.emplace_back(sample.slope / sample.offset, sample.weight * std::abs(sample.offset));
  std::sort(ratios.begin(), ratios.end());
  const double half = std::accumulate(ratios.begin(), ratios.end(), 0.0,
                                      [](double sum, const auto& ratio) { return sum + ratio.second; }) /
                      2;
  double sum = 0;
  for (const auto& [value, weight] : ratios) {
    sum += weight;
    if (sum >= half) return value;
  }
  return ratios.back().first;
}

// The focal length f of offset = f * slope, and the fit's root mean square error in pixels; none where no camera sees
// such points.
//
// The errors are in the slopes, of a network's points, and the offsets are exact: so the slopes are regressed on the
// offsets, to get 1/f. A weighted median starts the fit, which half of the pixels could be wrong for; least squares
// over those that agree refine it.
std::optional<std::pair<double, double>> focal(std::vector<Sample> samples) {
  const auto unusable = [](const Sample& sample) { return !std::isfinite(sample.slope) || sample.offset == 0; };
  samples.erase(std::remove_if(samples.begin(), samples.end(), unusable), samples.end());
  if (samples.size() < kFewest) return std::nullopt;
  double inverse = weighted_median(samples), error = 0;
  for (int round = 0; round < kRounds; ++round) {
    if (!(inverse > kParallel)) return std::nullopt;
    std::vector<double> off;
    for (const Sample& sample : samples) off.push_back(std::abs(sample.slope - inverse * sample.offset));
    const double most = kOutlying * 1.4826 * median(off);
    double cross = 0, square = 0, weights = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (!(off[i] <= most)) continue;
      const Sample& sample = samples[i];
      cross += sample.weight * sample.offset * sample.slope;
      square += sample.weight * sample.offset * sample.offset;
      weights += sample.weight;
    }
    inverse = cross / square;
    if (!(inverse > kParallel)) return std::nullopt;
    double errors = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      const double distance = samples[i].slope / inverse - samples[i].offset;
      if (off[i] <= most) errors += samples[i].weight * distance * distance;
    }
    error = std::sqrt(errors / weights);
    if (!(error < std::sqrt(square / weights))) return std::nullopt;
  }
  return std::pair(1 / inverse, error);
}

}  // namespace

Calibration calibrate(const View& view, const Placement& placement) {
  std::vector<Sample> across, down;
  for (int row = placement.top; row < placement.top + placement.height; ++row) {
    for (int column = placement.left; column < placement.left + placement.width; ++column) {
      const size_t i = static_cast<size_t>(row) * static_cast<size_t>(view.W) + static_cast<size_t>(column);
      const float* point = view.points + 3 * i;
      const float logit = view.confidence[i];
      if (!(std::isfinite(point[0]) && std::isfinite(point[1]) && std::isfinite(point[2]) && point[2] > 0) ||
          std::isnan(logit))
        continue;
      const auto weight = static_cast<double>(
          probability(std::clamp(logit, -30.0F, 30.0F)));  // clipped: all of them 0 would be no weights
      const auto z = static_cast<double>(point[2]);
      across.push_back({column + 0.5 - view.W / 2.0, static_cast<double>(point[0]) / z, weight});
      down.push_back({row + 0.5 - view.H / 2.0, static_cast<double>(point[1]) / z, weight});
    }
  }
  const auto x = focal(std::move(across)), y = focal(std::move(down));
  Calibration result{};
  result.fitted = x && y;
  const double guess = std::max(view.H, view.W);
  const auto [fx, off_x] = result.fitted ? *x : std::pair(guess, std::nan(""));
  const auto [fy, off_y] = result.fitted ? *y : std::pair(guess, std::nan(""));
  const double *scale = placement.scale, *shift = placement.shift;
  result.residual = std::hypot(off_x / scale[0], off_y / scale[1]);
  page4d::Camera& camera = result.camera;
  camera.width = placement.source_width, camera.height = placement.source_height;
  const double inverse_x = 1 / scale[0], inverse_y = 1 / scale[1];
  camera.K[0] = fx * inverse_x, camera.K[2] = view.W / 2.0 * inverse_x + -shift[0] / scale[0];
  camera.K[4] = fy * inverse_y, camera.K[5] = view.H / 2.0 * inverse_y + -shift[1] / scale[1];
  camera.K[8] = 1;
  std::copy(view.camera, view.camera + 16, result.camera_to_world);
  for (size_t i = 0; i < 3; ++i) {  // the inverse of a rigid pose
    double moved = 0;
    for (size_t j = 0; j < 3; ++j) {
      camera.world_to_camera[4 * i + j] = view.camera[4 * j + i];
      moved -= view.camera[4 * j + i] * view.camera[4 * j + 3];
    }
    camera.world_to_camera[4 * i + 3] = moved;
  }
  return result;
}

std::vector<std::string> write_calibration(const std::filesystem::path& path,
                                           const std::vector<std::pair<std::string, Calibration>>& calibrations) {
  Json content = Json::object();
  std::vector<std::string> left_out;
  for (const auto& [name, calibration] : calibrations) {
    Json entry = entry_of(calibration.camera);
    try {
      camera_of(name, entry);
    } catch (const page4d::Error&) {
      left_out.push_back(name);
      continue;
    }
    Json pose = Json::array();
    for (size_t i = 0; i < 4; ++i)
      pose.push_back(std::vector<double>(calibration.camera_to_world + 4 * i, calibration.camera_to_world + 4 * i + 4));
    entry["camera_to_world"] = pose;
    entry["fitted"] = calibration.fitted;
    entry["residual"] = std::isfinite(calibration.residual) ? Json(calibration.residual) : Json(nullptr);
    content[as_text(name)] = entry;
  }
  write_file(path, content.dump(1) + "\n");
  return left_out;
}

}  // namespace offline
