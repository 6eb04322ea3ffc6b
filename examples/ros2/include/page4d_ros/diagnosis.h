// The health of a rig, from its counts. Needs no ROS.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "page4d/rig.h"
#include "page4d_ros/worker.h"

namespace page4d_ros {

// As in diagnostic_msgs/DiagnosticStatus.
enum class Level : uint8_t { kOk = 0, kWarn = 1, kError = 2 };

struct Diagnosis {
  Level level = Level::kOk;
  std::string message;
  std::vector<std::pair<std::string, std::string>> values;
};

// now, before: the counts of this report and of the one before it.
Diagnosis diagnosis_of(const page4d::RigCounts& now, const page4d::RigCounts& before, const RunCounts& runs,
                       const RunCounts& runs_before);
// refused: images that the rig does not take; refusal: why the last of them was refused, as text.
Diagnosis diagnosis_of(const page4d::CameraCounts& now, const page4d::CameraCounts& before, int64_t refused,
                       int64_t refused_before, const std::string& refusal);

}  // namespace page4d_ros
