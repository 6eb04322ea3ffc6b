#include "rig/assembler.h"

#include <algorithm>
#include <limits>

namespace page4d {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

}  // namespace

Assembler::Assembler(int cameras, const RigOptions& options)
    : cameras_(cameras),
      tolerance_(options.tolerance),
      patience_(options.patience),
      repeats_(options.missing == Missing::kRepeat),
      depth_(static_cast<size_t>(options.pending) + 1),  // one more, until step() makes room again
      queues_(static_cast<size_t>(cameras) * depth_),
      fronts_(static_cast<size_t>(cameras)),
      counts_(static_cast<size_t>(cameras)),
      last_(static_cast<size_t>(cameras), kNever),
      newest_(kNever),
      given_up_(kNever),
      time_(static_cast<size_t>(cameras)) {}

bool Assembler::late(int camera, double stamp) const noexcept {
  return stamp <= last_[static_cast<size_t>(camera)] || stamp <= given_up_;
}

bool Assembler::push(int camera, double stamp, int slot) noexcept {
  const auto c = static_cast<size_t>(camera);
  const bool is_late = late(camera, stamp);
  last_[c] = std::max(last_[c], stamp);
  newest_ = std::max(newest_, stamp);
  if (is_late) return false;
  queues_[c * depth_ + (fronts_[c] + counts_[c]) % depth_] = {stamp, slot};
  ++counts_[c];
  return true;
}

Assembler::Step Assembler::step() noexcept {
  int first = -1;
  for (int c = 0; c < cameras_; ++c)
    if (waits(c) && (first < 0 || front(c).stamp < front(first).stamp)) first = c;
  if (first < 0) return Step::kNothing;

  const double start = front(first).stamp;
  const auto belongs = [&](int c) { return waits(c) && front(c).stamp - start <= tolerance_; };
  double end = start;
  int missing = 0, passed = 0;
  for (int c = 0; c < cameras_; ++c) {
    if (belongs(c)) {
      end = std::max(end, front(c).stamp);
    } else {
      ++missing;
      passed += waits(c);  // with an image of a later timestep: it has none of this one
    }
  }
  // An incomplete timestep waits for every image that may still come.
  if (passed < missing && (repeats_ || passed == 0)) {
    const bool crowded = std::any_of(counts_.begin(), counts_.end(), [&](size_t count) { return count == depth_; });
    if (!crowded && newest_ - start <= patience_) return Step::kNothing;
    given_up_ = start + tolerance_;
  }

  if (missing > 0 && !repeats_) {
    dropped_camera_ = first;
    dropped_slot_ = pop(first).slot;
    return Step::kDropped;
  }
  for (int c = 0; c < cameras_; ++c) time_[static_cast<size_t>(c)] = belongs(c) ? pop(c) : Entry{};
  skew_ = end - start;
  return Step::kTime;
}

double Assembler::last_stamp(int camera) const noexcept {
  const double last = last_[static_cast<size_t>(camera)];
  return last == kNever ? std::numeric_limits<double>::quiet_NaN() : last;
}

Assembler::Entry Assembler::pop(int camera) noexcept {
  const auto c = static_cast<size_t>(camera);
  const Entry entry = front(camera);
  fronts_[c] = (fronts_[c] + 1) % depth_;
  --counts_[c];
  return entry;
}

}  // namespace page4d
