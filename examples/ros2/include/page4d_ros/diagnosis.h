// What a rig's counts say of its health; needs nothing of ROS.
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
// refused: images that were no images of this rig; refusal: why the last was, in words.
Diagnosis diagnosis_of(const page4d::CameraCounts& now, const page4d::CameraCounts& before, int64_t refused,
                       int64_t refused_before, const std::string& refusal);

}  // namespace page4d_ros
