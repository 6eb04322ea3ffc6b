// Calibrated cameras: their checks, and the fundamental matrices of a rig. float64 throughout. Mirrors
// page4d/cameras.py.
#pragma once

#include <string>
#include <vector>

#include "page4d/image.h"

namespace page4d {

// name: what identifies the camera in an error, its name or index.
// Throws Error kUsage: a number that is not finite, no rotation, no calibration matrix.
void check(const Camera& camera, const std::string& name);

// Fundamental matrices of all ordered pairs of views: [V,V,3,3].
//
// F[a,b] (x, y, 1) of a pixel in view a is its epipolar line in view b. Each matrix has unit norm; it is zero ("no
// line, no penalty") for a view with itself and for two cameras at one centre. The cameras must have passed check().
std::vector<double> fundamental(const std::vector<Camera>& cameras);

}  // namespace page4d
