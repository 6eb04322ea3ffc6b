#include "predictions.h"

#include "depth.h"

namespace offline {
namespace {

constexpr char kCloud[] = "points.ply", kCameras[] = "cameras.json", kDepth[] = "depth";

CameraSummary summary_of(const Calibration& calibration) {
  CameraSummary summary{};
  for (size_t i = 0; i < 3; ++i) summary.position[i] = calibration.camera_to_world[4 * i + 3];
  summary.focal[0] = calibration.camera.K[0], summary.focal[1] = calibration.camera.K[4];
  summary.fitted = calibration.fitted;
  summary.residual = calibration.residual;
  return summary;
}

std::vector<float> depth_of(const View& view) {
  std::vector<float> depth(static_cast<size_t>(view.H) * static_cast<size_t>(view.W));
  for (size_t i = 0; i < depth.size(); ++i) depth[i] = view.points[3 * i + 2];
  return depth;
}

}  // namespace

PredictionSummary write_predictions(const Predictions& predictions, const std::filesystem::path& out,
                                    const std::filesystem::path& place) {
  const auto relative = [&out](const std::filesystem::path& path) {
    return path.lexically_relative(out).generic_string();
  };
  PredictionSummary summary;
  Cloud cloud;
  std::vector<float> all;
  for (const View& view : predictions.views) {
    cloud.add(view, predictions.min_confidence);
    const std::vector<float> depth = depth_of(view);
    all.insert(all.end(), depth.begin(), depth.end());
  }
  write_ply(place / kCloud, cloud);
  summary.cloud = relative(place / kCloud);
  summary.points = cloud.size();

  Named<Calibration> rig;
  std::vector<std::string> guessed;
  for (size_t v = 0; v < predictions.names.size(); ++v) {
    rig.emplace_back(predictions.names[v], calibrate(predictions.views[v], predictions.placement));
    if (!rig.back().second.fitted) guessed.push_back(predictions.names[v]);
    summary.rig.emplace_back(predictions.names[v], summary_of(rig.back().second));
  }
  const std::vector<std::string> left_out = write_calibration(place / kCameras, rig);
  summary.cameras = relative(place / kCameras);
  if (!guessed.empty())
    summary.warnings.push_back("no focal length fits the points of " + joined(guessed) + ": " + kCameras +
                               " holds a guess");
  if (!left_out.empty())
    summary.warnings.push_back("no pose was found for " + joined(left_out) + ": not in " + kCameras);

  summary.depth_scale = depth_scale(all);
  for (size_t v = 0; v < predictions.frames.size(); ++v) {
    const View& view = predictions.views[v];
    const std::filesystem::path path = place / kDepth / (predictions.frames[v] + ".png");
    std::filesystem::create_directories(path.parent_path());
    write_depth(path, depth_of(view).data(), view.H, view.W, summary.depth_scale);
    summary.depth.push_back(relative(path));
  }
  return summary;
}

}  // namespace offline
