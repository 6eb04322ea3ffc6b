// Converts a manifest to the public EngineInfo.
#pragma once

#include "manifest/manifest.h"
#include "page4d/engine_info.h"
#include "runtime/buffer_plan.h"

namespace page4d {

EngineInfo info_of(const Manifest& manifest, const BufferPlan& plan);

}  // namespace page4d
