// What people run Pi3 for, as files: a coloured point cloud, the cameras, and a depth image of every photo.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "calibration.h"
#include "cloud.h"
#include "summary.h"

namespace offline {

// Of one window.
struct Predictions {
  std::vector<View> views;          // [T*V]; cameras and depth are of the first time, as these engines see one
  std::vector<std::string> names;   // [V]
  std::vector<std::string> frames;  // [V], names of the depth images, without suffix; a slash makes a folder
  Placement placement;
  float min_confidence;  // least probability of a point in the cloud
};

// place: an existing folder in the output folder `out`. Throws std::filesystem::filesystem_error.
PredictionSummary write_predictions(const Predictions& predictions, const std::filesystem::path& out,
                                    const std::filesystem::path& place);

}  // namespace offline
