// What an assembler makes of images that are pushed in some order.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "rig/assembler.h"
#include "support/check.h"

namespace rig_test {

using page4d::Assembler;
using page4d::RigOptions;

inline int64_t nanoseconds_of(double seconds) { return std::llround(seconds * 1e9); }

struct Event {
  int camera;
  int64_t stamp;
  int number;  // used as the slot
  int64_t arrival;
};

struct Outcome {
  std::vector<std::vector<Assembler::Entry>> times;
  std::vector<int64_t> skews;
  std::vector<int> late, dropped;
};

inline Outcome feed(int cameras, const RigOptions& options, const std::vector<Event>& events) {
  Assembler assembler(cameras, options);
  Outcome outcome;
  for (const Event& event : events) {
    const bool late = assembler.late(event.camera, event.stamp);
    CHECK(assembler.push(event.camera, event.stamp, event.number) == !late);
    if (late) outcome.late.push_back(event.number);
    for (Assembler::Step step; (step = assembler.step()) != Assembler::Step::kNothing;) {
      if (step == Assembler::Step::kDropped) {
        outcome.dropped.push_back(assembler.dropped_slot());
        continue;
      }
      outcome.times.emplace_back(assembler.time(), assembler.time() + cameras);
      outcome.skews.push_back(assembler.skew());
    }
  }
  return outcome;
}

// No image is used twice; a timestep's own images are within the tolerance; timesteps are in order.
inline void check_times(const Outcome& outcome, double seconds) {
  const int64_t tolerance = nanoseconds_of(seconds);
  std::set<int> seen(outcome.dropped.begin(), outcome.dropped.end());
  CHECK(seen.size() == outcome.dropped.size());
  for (const int number : outcome.late) CHECK(seen.insert(number).second);
  int64_t before = page4d::kNoStamp;
  for (size_t t = 0; t < outcome.times.size(); ++t) {
    int64_t first = std::numeric_limits<int64_t>::max(), last = page4d::kNoStamp;
    for (const auto& entry : outcome.times[t]) {
      if (entry.slot < 0) continue;
      CHECK(seen.insert(entry.slot).second);
      first = std::min(first, entry.stamp);
      last = std::max(last, entry.stamp);
    }
    CHECK(last - first <= tolerance);
    CHECK(outcome.skews[t] == last - first);
    CHECK(first > before);
    before = first;
  }
}

}  // namespace rig_test
