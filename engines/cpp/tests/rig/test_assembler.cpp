// Which images become one timestep: compared with matchers that know all stamps beforehand.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "rig/assembled.h"

using page4d::Assembler;
using page4d::Missing;
using page4d::RigOptions;
using rig_test::check_times;
using rig_test::Event;
using rig_test::feed;
using rig_test::nanoseconds_of;
using rig_test::Outcome;

namespace {

constexpr int64_t kPeriod = 33333333, kSecond = 1000000000, kTick = kSecond / 10000;

// The largest number of complete timesteps that any matching gives: every choice is tried.
int most_times(const std::vector<std::vector<int64_t>>& stamps, int64_t tolerance) {
  std::map<std::vector<size_t>, int> known;
  const std::function<int(std::vector<size_t>)> best = [&](std::vector<size_t> at) {
    for (size_t c = 0; c < at.size(); ++c)
      if (at[c] == stamps[c].size()) return 0;
    const auto entry = known.find(at);
    if (entry != known.end()) return entry->second;
    int64_t first = stamps[0][at[0]], last = first;
    int most = 0;
    for (size_t c = 0; c < at.size(); ++c) {
      first = std::min(first, stamps[c][at[c]]);
      last = std::max(last, stamps[c][at[c]]);
      std::vector<size_t> without = at;
      ++without[c];
      most = std::max(most, best(without));
    }
    if (last - first <= tolerance) {
      std::vector<size_t> after = at;
      for (size_t& index : after) ++index;
      most = std::max(most, 1 + best(after));
    }
    return known[at] = most;
  };
  return best(std::vector<size_t>(stamps.size()));
}

// Shuffles the cameras' images, as their threads may; each camera's own images stay in order.
void shuffle(std::vector<Event>& events, std::mt19937& random) {
  std::vector<int> order;
  std::map<int, std::vector<Event>> queues;
  for (const Event& event : events) {
    order.push_back(event.camera);
    queues[event.camera].push_back(event);
  }
  std::shuffle(order.begin(), order.end(), random);
  std::map<int, size_t> at;
  for (size_t i = 0; i < order.size(); ++i) events[i] = queues[order[i]][at[order[i]]++];
}

void test_any_stamps_make_as_many_times_as_possible() {
  std::mt19937 random(1);
  int most_seen = 0;
  for (int round = 0; round < 400; ++round) {
    const int cameras = 1 + static_cast<int>(random() % 3);
    std::vector<std::vector<int64_t>> stamps(static_cast<size_t>(cameras));
    std::vector<Event> events;
    for (int c = 0; c < cameras; ++c) {
      int64_t stamp = 0;
      for (size_t i = 0, count = random() % 9; i < count; ++i) {
        stamp += nanoseconds_of(std::uniform_real_distribution<double>(0.001, 0.06)(random));
        stamps[static_cast<size_t>(c)].push_back(stamp);
        events.push_back({c, stamp, static_cast<int>(events.size()), 0});
      }
    }
    shuffle(events, random);
    RigOptions options;
    options.tolerance = std::uniform_real_distribution<double>(0, 0.05)(random);
    options.patience = 1e9;
    options.pending = 20;
    const Outcome outcome = feed(cameras, options, events);
    check_times(outcome, options.tolerance);
    CHECK(outcome.late.empty());
    CHECK(static_cast<int>(outcome.times.size()) == most_times(stamps, nanoseconds_of(options.tolerance)));
    most_seen = std::max(most_seen, static_cast<int>(outcome.times.size()));
  }
  CHECK(most_seen >= 5);
}

// A rig of four at 30 Hz: the stamps of a timestep jitter as far as the tolerance allows, a tenth of the images is
// lost, and each arrives up to 60 ms late.
struct Simulated {
  std::vector<Event> events;                 // in the order of arrival
  std::map<int, std::array<int, 4>> images;  // by timestep: each camera's image, -1 if it was lost

  Simulated(double tolerance, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> jitter(-tolerance / 2, tolerance / 2), delay(0, 0.06), share(0, 1);
    std::array<int64_t, 4> arrival{};
    for (int k = 0; k < 600; ++k) {
      std::array<int, 4> image_numbers{};
      for (int c = 0; c < 4; ++c) {
        image_numbers[static_cast<size_t>(c)] = -1;
        if (share(random) < 0.1) continue;
        const int64_t stamp = 1000 * kSecond + k * kPeriod + nanoseconds_of(jitter(random));
        int64_t& arrived = arrival[static_cast<size_t>(c)];
        arrived = std::max(arrived, stamp + nanoseconds_of(delay(random)));
        image_numbers[static_cast<size_t>(c)] = static_cast<int>(events.size());
        events.push_back({c, stamp, static_cast<int>(events.size()), arrived});
      }
      images[k] = image_numbers;
    }
    std::stable_sort(events.begin(), events.end(),
                     [](const Event& a, const Event& b) { return a.arrival < b.arrival; });
  }
};

int lost(const std::array<int, 4>& image_numbers) {
  return static_cast<int>(std::count(image_numbers.begin(), image_numbers.end(), -1));
}

void test_a_jittered_rig_loses_no_time() {
  for (const double tolerance : {0.002, 0.01, 0.0166}) {
    for (unsigned seed = 0; seed < 4; ++seed) {
      const Simulated rig(tolerance, seed);
      for (const Missing missing : {Missing::kSkip, Missing::kRepeat, Missing::kAbsent}) {
        RigOptions options;
        if (missing == Missing::kAbsent) options.patience = 0.5;  // no camera is lost by chance
        options.tolerance = tolerance + 1e-9;                     // both ends of the jitter are rounded
        options.missing = missing;
        const Outcome outcome = feed(4, options, rig.events);
        check_times(outcome, options.tolerance);
        CHECK(outcome.late.empty());

        size_t t = 0;
        for (const auto& [k, image_numbers] : rig.images) {
          const bool complete = lost(image_numbers) == 0 || (missing != Missing::kSkip && lost(image_numbers) < 4);
          if (!complete) continue;
          if (t == outcome.times.size()) {
            CHECK(missing != Missing::kSkip && k >= 580);  // still waited for when the images end
            continue;
          }
          for (size_t c = 0; c < 4; ++c) CHECK(outcome.times[t][c].slot == image_numbers[c]);
          ++t;
        }
        CHECK(t == outcome.times.size());
        CHECK(t > 350);
      }
    }
  }
}

void test_an_image_out_of_order_is_late() {
  RigOptions options;
  const std::vector<Event> events = {{0, 10000 * kTick, 0, 0}, {0, 10000 * kTick, 1, 0}, {0, 9000 * kTick, 2, 0},
                                     {1, 10010 * kTick, 3, 0}, {1, 10005 * kTick, 4, 0}, {1, 10300 * kTick, 5, 0},
                                     {0, 10300 * kTick, 6, 0}};
  const Outcome outcome = feed(2, options, events);
  CHECK((outcome.late == std::vector<int>{1, 2, 4}));
  CHECK(outcome.dropped.empty());
  CHECK(outcome.times.size() == 2 && outcome.times[1][0].slot == 6 && outcome.times[1][1].slot == 5);
}

void test_patience_ends_by_the_stamps_of_others() {
  RigOptions options;
  options.patience = 0.1;
  // Camera 1 is silent: its image of 1.0 comes after camera 0's of 1.12.
  const std::vector<Event> events = {{0, 10000 * kTick, 0, 0},
                                     {0, 10900 * kTick, 1, 0},
                                     {0, 11200 * kTick, 2, 0},
                                     {1, 10050 * kTick, 3, 0},
                                     {1, 10900 * kTick, 4, 0}};
  const Outcome skipped = feed(2, options, events);
  CHECK((skipped.dropped == std::vector<int>{0}) && (skipped.late == std::vector<int>{3}));
  CHECK(skipped.times.size() == 1 && skipped.times[0][0].slot == 1 && skipped.times[0][1].slot == 4);

  options.missing = Missing::kRepeat;
  const Outcome repeated = feed(2, options, events);
  CHECK(repeated.dropped.empty() && (repeated.late == std::vector<int>{3}));
  CHECK(repeated.times.size() == 2);
  CHECK(repeated.times[0][0].slot == 0 && repeated.times[0][1].slot == -1);
  CHECK(repeated.times[1][0].slot == 1 && repeated.times[1][1].slot == 4);

  // In time: nothing is lost.
  const Outcome patient =
      feed(2, options,
           {{0, 10000 * kTick, 0, 0}, {0, 10500 * kTick, 1, 0}, {0, 10900 * kTick, 2, 0}, {1, 10050 * kTick, 3, 0}});
  CHECK(patient.times.size() == 1 && patient.times[0][1].slot == 3);

  // The newest stamp counts, not the one that came last.
  CHECK(feed(3, options, {{0, 11200 * kTick, 0, 0}, {1, 10000 * kTick, 1, 0}}).times.size() == 1);
}

void test_what_cannot_be_completed_is_not_waited_for() {
  RigOptions options;
  options.patience = 10;
  // Camera 1 goes on at 1.03: it has no image of 1.0.
  const std::vector<Event> events = {{0, 10000 * kTick, 0, 0}, {1, 10300 * kTick, 1, 0}};
  CHECK((feed(2, options, events).dropped == std::vector<int>{0}));
  options.missing = Missing::kRepeat;
  CHECK(feed(2, options, events).times.size() == 1);
  CHECK(feed(3, options, events).times.empty());  // camera 2 may still have one
}

void test_too_many_waiting_images_end_the_patience() {
  RigOptions options;
  options.patience = 1e9;
  options.pending = 3;
  std::vector<Event> events;
  for (int k = 0; k < 5; ++k) events.push_back({0, k * kPeriod, k, 0});
  CHECK((feed(2, options, events).dropped == std::vector<int>{0, 1}));
  events.push_back({1, 4 * kPeriod, 9, 0});
  CHECK(feed(2, options, events).times.size() == 1);
  options.missing = Missing::kRepeat;
  const Outcome repeated = feed(2, options, events);
  CHECK(repeated.times.size() == 5 && repeated.times[4][1].slot == 9 && repeated.times[3][1].slot == -1);
}

}  // namespace

int main() {
  test_any_stamps_make_as_many_times_as_possible();
  test_a_jittered_rig_loses_no_time();
  test_an_image_out_of_order_is_late();
  test_patience_ends_by_the_stamps_of_others();
  test_what_cannot_be_completed_is_not_waited_for();
  test_too_many_waiting_images_end_the_patience();
}
