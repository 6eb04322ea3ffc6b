// Points in the world from a window's results, the same way for every model. Conventions: docs/conventions.md.
#pragma once

#include "page4d/engine_info.h"
#include "page4d/error.h"
#include "page4d/export.h"
#include "page4d/pipeline.h"

namespace page4d {

// What points in the world are made from.
enum class PointsSource {
  kBest,    // kDepth where there is all that it takes, else kPoints
  kDepth,   // depth, camera and intrinsics
  kPoints,  // points; and camera, where points are in their camera's frame
};

// Every pixel's point in the world, computed in float64. Up to scale, as the results are. NaN where the pose, or a
// focal length that it takes, is NaN.
//
// info, outputs: of the engines and of a window of theirs that is done. An output counts as there if it has memory.
// target: float32 [T,V,H,W,3], with an axis of clips in front for engines of several.
// Throws Error and nothing else: kUsage if an output that it takes is not there, or in device memory. Allocates nothing
// unless it throws. Any thread.
PAGE4D_API void world_points(const EngineInfo& info, const Outputs& outputs, float* target,
                             PointsSource source = PointsSource::kBest);

}  // namespace page4d
