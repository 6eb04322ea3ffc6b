// Diagnoses of counts, without ROS and without the library.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "page4d_ros/diagnosis.h"

namespace page4d_ros {
namespace {

void check(const Diagnosis& diagnosis, Level level, const std::string& message, const char* key,
           const std::string& value) {
  for (const auto& [name, text] : diagnosis.values)
    if (name == key && text == value && diagnosis.level == level && diagnosis.message == message) return;
  std::fprintf(stderr, "level %d, %s\n", static_cast<int>(diagnosis.level), diagnosis.message.c_str());
  for (const auto& [name, text] : diagnosis.values) std::fprintf(stderr, "  %s: %s\n", name.c_str(), text.c_str());
  std::exit(1);
}

void rig() {
  page4d::RigCounts before, now;
  RunCounts runs_before, runs;
  check(diagnosis_of(now, before, runs, runs_before), Level::kWarn, "no timestep was completed", "times", "0");
  now.times = 8;
  now.windows = 2;
  now.largest_skew = 0.0125;
  runs.runs = 1;
  runs.seconds = 0.25;
  const Diagnosis running = diagnosis_of(now, before, runs, runs_before);
  check(running, Level::kOk, "running", "windows", "2");
  check(running, Level::kOk, "running", "windows run", "1");
  check(running, Level::kOk, "running", "last run, seconds", "0.250000");
  check(running, Level::kOk, "running", "largest skew, seconds", "0.012500");
  check(diagnosis_of(now, now, runs, runs), Level::kWarn, "no timestep was completed", "times", "8");
  now.windows_dropped = 3;
  check(diagnosis_of(now, before, runs, runs_before), Level::kWarn,
        "windows are dropped: the engines are slower than the cameras", "windows dropped", "3");
  runs.failures = 1;
  runs.failure = "no memory";
  check(diagnosis_of(now, before, runs, runs_before), Level::kError, "a window failed: no memory", "windows failed",
        "1");
  before.windows_dropped = 3;
  check(diagnosis_of(now, before, runs, runs), Level::kOk, "running", "windows failed", "1");  // reported once
}

void camera() {
  page4d::CameraCounts before, now;
  check(diagnosis_of(now, before, 0, 0, ""), Level::kError, "no images come", "pushed", "0");
  now.pushed = 5;
  now.late = 2;
  now.unmatched = 3;
  check(diagnosis_of(now, before, 0, 0, ""), Level::kWarn, "images come, but none is used", "late", "2");
  check(diagnosis_of(now, before, 0, 0, ""), Level::kWarn, "images come, but none is used", "unmatched", "3");
  now.used = 1;
  now.repeated = 4;
  check(diagnosis_of(now, before, 0, 0, ""), Level::kOk, "running", "repeated", "4");
  check(diagnosis_of(now, before, 7, 6, "cut off"), Level::kError, "images are refused: cut off", "refused", "7");
  check(diagnosis_of(now, before, 7, 7, "cut off"), Level::kOk, "running", "refused", "7");
}

}  // namespace
}  // namespace page4d_ros

int main() {
  page4d_ros::rig();
  page4d_ros::camera();
  std::puts("all diagnoses are right");
  return 0;
}
