#include "page4d_ros/diagnosis.h"

#include <cstdio>

namespace page4d_ros {
namespace {

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6f", value);
  return text;
}

}  // namespace

Diagnosis diagnosis_of(const page4d::RigCounts& now, const page4d::RigCounts& before, const RunCounts& runs,
                       const RunCounts& runs_before) {
  Diagnosis diagnosis;
  if (runs.failures > runs_before.failures)
    diagnosis = {Level::kError, "a window failed: " + runs.failure, {}};
  else if (now.windows_dropped > before.windows_dropped)
    diagnosis = {Level::kWarn, "windows are dropped: the engines are slower than the cameras", {}};
  else if (now.times == before.times)
    diagnosis = {Level::kWarn, "no timestep was completed", {}};
  else
    diagnosis = {Level::kOk, "running", {}};
  diagnosis.values = {{"times", std::to_string(now.times)},
                      {"windows", std::to_string(now.windows)},
                      {"windows dropped", std::to_string(now.windows_dropped)},
                      {"windows run", std::to_string(runs.runs)},
                      {"windows failed", std::to_string(runs.failures)},
                      {"last run, seconds", seconds(runs.seconds)},
                      {"largest skew, seconds", seconds(now.largest_skew)},
                      {"mean skew, seconds", seconds(now.mean_skew)}};
  return diagnosis;
}

Diagnosis diagnosis_of(const page4d::CameraCounts& now, const page4d::CameraCounts& before, int64_t refused,
                       int64_t refused_before, const std::string& refusal) {
  Diagnosis diagnosis;
  if (refused > refused_before)
    diagnosis = {Level::kError, "images are refused: " + refusal, {}};
  else if (now.pushed == before.pushed)
    diagnosis = {Level::kError, "no images come", {}};
  else if (now.used == before.used)
    diagnosis = {Level::kWarn, "images come, but none is used", {}};
  else
    diagnosis = {Level::kOk, "running", {}};
  diagnosis.values = {{"pushed", std::to_string(now.pushed)},     {"used", std::to_string(now.used)},
                      {"late", std::to_string(now.late)},         {"unmatched", std::to_string(now.unmatched)},
                      {"repeated", std::to_string(now.repeated)}, {"refused", std::to_string(refused)}};
  return diagnosis;
}

}  // namespace page4d_ros
