// Converts a manifest to the public EngineInfo.
#pragma once

#include "manifest/manifest.h"
#include "page4d/engine_info.h"
#include "runtime/buffer_plan.h"

namespace page4d {

// knows_cameras: whether the images' cameras are given, which some engines can do without.
EngineInfo info_of(const Manifest& manifest, const BufferPlan& plan, bool knows_cameras = false);

// The fit that a caller's stands for with these engines: Fit::kPublished is one of several.
Fit fit_for(const EngineInfo& engines, Fit fit);

}  // namespace page4d
