// A camera's intrinsics, fitted to the points that its image shows, with its pose; and cameras.json of such cameras.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cloud.h"
#include "page4d/image.h"

namespace offline {

// How a source image came to the engines': as page4d::ImageFit has it.
struct Placement {
  int source_width, source_height;
  int left, top, width, height;  // of the engines' image, the part that shows something of the source
  double scale[2], shift[2];
};

struct Calibration {
  page4d::Camera camera;  // of the source image, in its pixels; the principal point is the middle of the engines' image
  double camera_to_world[16];  // [4,4]; NaN where the network gave no pose, and then the camera's is, too
  bool fitted;      // whether the focal lengths come from the points; if not, they are a guess, the larger side of the
                    // engines' image
  double residual;  // root mean square distance between a pixel and where the camera sees its point, in pixels of the
                    // source; NaN where not fitted
};

// The weights of the fit are the probabilities of the confidence. Pixels that show nothing of the source take no part.
Calibration calibrate(const View& view, const Placement& placement);

// Returns the names of the cameras that were left out: what they have for a pose is not finite, or no rotation.
// Throws std::filesystem::filesystem_error.
std::vector<std::string> write_calibration(const std::filesystem::path& path,
                                           const std::vector<std::pair<std::string, Calibration>>& calibrations);

}  // namespace offline
