#include "rig/assembler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace page4d {
namespace {

// Before every stamp.
constexpr int64_t kNever = kNoStamp;
constexpr int64_t kLongest = std::numeric_limits<int64_t>::max();

// seconds: 0 or more. More than can be counted is kLongest.
int64_t nanoseconds_of(double seconds) {
  const double nanoseconds = seconds * 1e9;
  return nanoseconds < static_cast<double>(kLongest) ? std::llround(nanoseconds) : kLongest;
}

// From `start` to `end`, which is not before it.
int64_t time_between(int64_t start, int64_t end) {
  int64_t difference = 0;
  return __builtin_sub_overflow(end, start, &difference) ? kLongest : difference;
}

int64_t later_by(int64_t stamp, int64_t time) {
  int64_t sum = 0;
  return __builtin_add_overflow(stamp, time, &sum) ? kLongest : sum;
}

}  // namespace

Assembler::Assembler(int cameras, const RigOptions& options)
    : cameras_(cameras),
      tolerance_(nanoseconds_of(options.tolerance)),
      patience_(nanoseconds_of(options.patience)),
      keeps_incomplete_(options.missing != Missing::kSkip),
      leaves_lost_(options.missing == Missing::kAbsent),
      depth_(static_cast<size_t>(options.pending) + 1),  // one more, until step() makes room again
      queues_(static_cast<size_t>(cameras) * depth_),
      fronts_(static_cast<size_t>(cameras)),
      counts_(static_cast<size_t>(cameras)),
      last_(static_cast<size_t>(cameras), kNever),
      first_(kNever),
      newest_(kNever),
      given_up_(kNever),
      time_(static_cast<size_t>(cameras)) {}

bool Assembler::late(int camera, int64_t stamp) const noexcept {
  return stamp <= last_[static_cast<size_t>(camera)] || stamp <= given_up_;
}

bool Assembler::push(int camera, int64_t stamp, int slot) noexcept {
  const auto c = static_cast<size_t>(camera);
  const bool is_late = late(camera, stamp);
  if (first_ == kNever) first_ = stamp;
  last_[c] = std::max(last_[c], stamp);
  newest_ = std::max(newest_, stamp);
  if (is_late) return false;
  queues_[c * depth_ + (fronts_[c] + counts_[c]) % depth_] = {stamp, slot};
  ++counts_[c];
  return true;
}

bool Assembler::is_lost(int camera) const noexcept {
  return leaves_lost_ && time_between(std::max(last_[static_cast<size_t>(camera)], first_), newest_) > patience_;
}

Assembler::Step Assembler::step() noexcept {
  int first = -1;
  for (int c = 0; c < cameras_; ++c)
    if (waits(c) && (first < 0 || front(c).stamp < front(first).stamp)) first = c;
  if (first < 0) return Step::kNothing;

  const int64_t start = front(first).stamp;
  const auto belongs = [&](int c) { return waits(c) && time_between(start, front(c).stamp) <= tolerance_; };
  int64_t end = start;
  int missing = 0, passed = 0, lost = 0;
  for (int c = 0; c < cameras_; ++c) {
    if (belongs(c)) {
      end = std::max(end, front(c).stamp);
    } else {
      ++missing;
      passed += waits(c);  // with an image of a later timestep: it has none of this one
      lost += !waits(c) && is_lost(c);
    }
  }
  // An incomplete timestep waits for every image that may still come.
  if (passed + lost < missing && (keeps_incomplete_ || passed == 0)) {
    const bool crowded = std::any_of(counts_.begin(), counts_.end(), [&](size_t count) { return count == depth_; });
    if (!crowded && time_between(start, newest_) <= patience_) return Step::kNothing;
  }
  // An image that was not waited for may come all the same.
  if (passed < missing && (keeps_incomplete_ || passed == 0)) given_up_ = later_by(start, tolerance_);

  if (missing > 0 && !keeps_incomplete_) {
    dropped_camera_ = first;
    dropped_slot_ = pop(first).slot;
    return Step::kDropped;
  }
  for (int c = 0; c < cameras_; ++c) time_[static_cast<size_t>(c)] = belongs(c) ? pop(c) : Entry{};
  skew_ = time_between(start, end);
  return Step::kTime;
}

Assembler::Entry Assembler::pop(int camera) noexcept {
  const auto c = static_cast<size_t>(camera);
  const Entry entry = front(camera);
  fronts_[c] = (fronts_[c] + 1) % depth_;
  --counts_[c];
  return entry;
}

}  // namespace page4d
