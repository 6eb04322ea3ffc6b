#include "summary.h"

#include <algorithm>
#include <cmath>

namespace offline {
namespace {

Json known(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json texts(const std::vector<std::string>& values) {
  Json result = Json::array();
  for (const std::string& value : values) result.push_back(as_text(value));
  return result;
}

template <class Value, class Convert>
Json mapping(const Named<Value>& values, const Convert& convert) {
  Json result = Json::object();
  for (const auto& [name, value] : values) result[as_text(name)] = convert(value);
  return result;
}

Json camera_json(const CameraSummary& camera) {
  return {{"position", {known(camera.position[0]), known(camera.position[1]), known(camera.position[2])}},
          {"focal", {camera.focal[0], camera.focal[1]}},
          {"fitted", camera.fitted},
          {"residual", known(camera.residual)}};
}

Json predictions_json(const PredictionSummary& found) {
  return {{"cloud", as_text(found.cloud)},     {"points", found.points},
          {"cameras", as_text(found.cameras)}, {"depth", texts(found.depth)},
          {"depth_scale", found.depth_scale},  {"rig", mapping(found.rig, camera_json)},
          {"warnings", texts(found.warnings)}};
}

Json window_json(const WindowSummary& window) {
  return {{"name", window.name},
          {"first_frame", as_text(window.first_frame)},
          {"last_frame", as_text(window.last_frame)},
          {"file", window.file},
          {"seconds", window.seconds},
          {"mask_mean", mapping(window.mask_mean,
                                [](const std::optional<double>& mean) { return mean ? Json(*mean) : Json(nullptr); })},
          {"overlays", texts(window.overlays)},
          {"predictions", window.predictions ? predictions_json(*window.predictions) : Json(nullptr)}};
}

}  // namespace

bool Summary::seeded() const {
  std::string lower = weights;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower.find("seeded") != std::string::npos;
}

bool Summary::has_mask() const {
  return std::any_of(windows.begin(), windows.end(),
                     [](const WindowSummary& window) { return !window.mask_mean.empty(); });
}

bool Summary::has_predictions() const {
  return std::any_of(windows.begin(), windows.end(),
                     [](const WindowSummary& window) { return window.predictions.has_value(); });
}

std::optional<double> Summary::mask_mean() const {
  double sum = 0;
  int64_t count = 0;
  for (const WindowSummary& window : windows) {
    for (const auto& [camera, mean] : window.mask_mean) {
      if (!mean) return std::nullopt;
      sum += *mean;
      count += 1;
    }
  }
  return count == 0 ? std::nullopt : std::optional(sum / static_cast<double>(count));
}

const char* Summary::seeded_note() const {
  return has_mask() || !has_predictions() ? "weights are seeded, the mask is not meaningful beyond the external mask"
                                          : "weights are seeded, points, depth and cameras are noise";
}

Json to_json(const Summary& summary) {
  Json windows = Json::array();
  for (const WindowSummary& window : summary.windows) windows.push_back(window_json(window));
  const page4d::Layout& layout = summary.layout;
  const auto same = [](const auto& value) { return Json(value); };
  return {{"page4d", summary.page4d},
          {"engines", as_text(summary.engines)},
          {"frames", as_text(summary.frames)},
          {"model", Json::parse(summary.model)},
          {"weights", summary.weights},
          {"layout", {{"T", layout.T}, {"V", layout.V}, {"H", layout.H}, {"W", layout.W}, {"B", layout.B}}},
          {"precision", summary.precision},
          {"backend", summary.backend},
          {"cameras", texts(summary.cameras)},
          {"windows", windows},
          {"stage_seconds", mapping(summary.stage_seconds, same)},
          {"stage_flop", mapping(summary.stage_flop, same)},
          {"decode_seconds", summary.decode_seconds},
          {"write_seconds", summary.write_seconds},
          {"wall_seconds", summary.wall_seconds},
          {"startup_seconds", summary.startup_seconds},
          {"buffer_bytes", summary.buffer_bytes},
          {"peak_rss_bytes", summary.peak_rss_bytes},
          {"warnings", texts(summary.warnings)}};
}

}  // namespace offline
