// The members of Outputs by the names in EngineInfo::outputs.
#pragma once

#include <string>

#include "page4d/pipeline.h"

namespace page4d {

struct NamedOutput {
  const char* name;
  Output Outputs::* member;
};

inline constexpr NamedOutput kNamedOutputs[] = {{"mask", &Outputs::mask},
                                                {"memory", &Outputs::memory},
                                                {"points", &Outputs::points},
                                                {"points_confidence", &Outputs::points_confidence},
                                                {"confidence", &Outputs::confidence},
                                                {"depth", &Outputs::depth},
                                                {"depth_confidence", &Outputs::depth_confidence},
                                                {"camera", &Outputs::camera},
                                                {"intrinsics", &Outputs::intrinsics},
                                                {"metric", &Outputs::metric},
                                                {"sky", &Outputs::sky}};

// Null for a layer.
inline Output Outputs::* output_called(const std::string& name) noexcept {
  for (const NamedOutput& output : kNamedOutputs) {
    if (name == output.name) return output.member;
  }
  return nullptr;
}

}  // namespace page4d
