// Cameras that fall silent while Missing::kAbsent: timesteps go on without them, and do not wait for them.
#include <map>
#include <random>
#include <tuple>

#include "rig/assembled.h"
#include "rig/rig_images.h"
#include "support/allocations.h"

using namespace page4d;
using rig_test::engines;
using rig_test::is_black;
using rig_test::Picture;
using rig_test::shows;

namespace {

constexpr int64_t kPeriod = 33333333, kMilli = 1000000;

RigOptions absent() {
  RigOptions options;
  options.missing = Missing::kAbsent;
  return options;
}

// What the assembler's comments say, without queues: all waiting images are looked at each time.
std::vector<std::vector<int>> naive_times(int cameras, const RigOptions& options,
                                          const std::vector<rig_test::Event>& events) {
  const int64_t tolerance = rig_test::nanoseconds_of(options.tolerance),
                patience = rig_test::nanoseconds_of(options.patience);
  std::map<int64_t, std::map<int, int>> waiting;  // by stamp and camera: the image's number
  std::map<int, int64_t> heard;                   // by camera: its newest stamp, or the rig's first
  std::map<int, int> count;
  std::set<int> has_pushed;
  int64_t newest = kNoStamp, given_up = kNoStamp;
  std::vector<std::vector<int>> times;
  for (const auto& event : events) {
    if (newest == kNoStamp)
      for (int c = 0; c < cameras; ++c) heard[c] = event.stamp;
    const bool has_newer = !has_pushed.insert(event.camera).second && event.stamp <= heard[event.camera];
    const bool is_late = has_newer || event.stamp <= given_up;
    heard[event.camera] = std::max(heard[event.camera], event.stamp);
    newest = std::max(newest, event.stamp);
    if (!is_late) waiting[event.stamp][event.camera] = event.number, ++count[event.camera];
    while (!waiting.empty()) {
      const int64_t start = waiting.begin()->first;
      std::vector<int> time(static_cast<size_t>(cameras), -1), has_more(static_cast<size_t>(cameras), 0);
      for (const auto& [stamp, images] : waiting)
        for (const auto& [camera, number] : images) {
          int& image = time[static_cast<size_t>(camera)];
          if (stamp <= start + tolerance && image < 0) image = number;
          has_more[static_cast<size_t>(camera)] = 1;
        }
      bool is_awaited = false, is_incomplete = false, is_crowded = false;
      for (int c = 0; c < cameras; ++c) {
        const bool has_none = has_more[static_cast<size_t>(c)] == 0;
        is_incomplete = is_incomplete || has_none;
        is_awaited = is_awaited || (has_none && newest - heard[c] <= patience);
        is_crowded = is_crowded || count[c] > options.pending;
      }
      if (is_awaited && !is_crowded && newest - start <= patience) break;
      if (is_incomplete) given_up = std::max(given_up, start + tolerance);
      for (auto entry = waiting.begin(); entry != waiting.end();) {
        for (int c = 0; c < cameras; ++c) {
          const auto image = entry->second.find(c);
          if (image == entry->second.end() || image->second != time[static_cast<size_t>(c)]) continue;
          entry->second.erase(image), --count[c];
        }
        entry = entry->second.empty() ? waiting.erase(entry) : std::next(entry);
      }
      times.push_back(time);
    }
  }
  return times;
}

// Cameras die, come back, stutter and are slow.
std::vector<rig_test::Event> random_events(int cameras, std::mt19937& random) {
  std::uniform_real_distribution<double> jitter(-0.007, 0.007), share(0, 1), delay(0, 0.05);
  std::vector<rig_test::Event> events;
  for (int c = 0; c < cameras; ++c) {
    int silent = 0;
    int64_t arrival = 0;
    for (int k = 1; k < 60; ++k) {
      if (silent == 0 && share(random) < 0.06) silent = 1 + static_cast<int>(random() % 20);
      if (silent > 0 && --silent >= 0) continue;
      const int64_t stamp = k * kPeriod + rig_test::nanoseconds_of(jitter(random));
      arrival = std::max(arrival, stamp + rig_test::nanoseconds_of(share(random) < 0.05 ? 0.2 : delay(random)));
      events.push_back({c, stamp, 0, arrival});
    }
  }
  std::sort(events.begin(), events.end(), [](const auto& a, const auto& b) {
    return std::tie(a.arrival, a.camera, a.stamp) < std::tie(b.arrival, b.camera, b.stamp);
  });
  for (size_t i = 0; i < events.size(); ++i) events[i].number = static_cast<int>(i);
  return events;
}

void test_timesteps_are_those_of_a_naive_model() {
  int64_t holes = 0, late = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    const int cameras = 1 + static_cast<int>(random() % 4);
    RigOptions options = absent();
    options.patience = 0.02 + 0.04 * static_cast<double>(random() % 4);
    options.pending = 2 + static_cast<int>(random() % 8);
    const std::vector<rig_test::Event> events = random_events(cameras, random);
    const rig_test::Outcome outcome = rig_test::feed(cameras, options, events);
    rig_test::check_times(outcome, options.tolerance);
    CHECK(outcome.dropped.empty());
    const auto expected = naive_times(cameras, options, events);
    CHECK(outcome.times.size() == expected.size());
    for (size_t t = 0; t < expected.size(); ++t)
      for (size_t c = 0; c < expected[t].size(); ++c) {
        CHECK(outcome.times[t][c].slot == expected[t][c]);
        holes += expected[t][c] < 0;
      }
    late += static_cast<int64_t>(outcome.late.size());
  }
  CHECK(holes > 1000 && late > 100);
}

// Camera 1 has no image of timesteps 0 and 10 to 39. It pushes after the others.
void push_with_a_death(Rig& rig, int64_t k) {
  for (const int c : {0, 2}) rig.push(c, Picture(c, k).image, k * kPeriod);
  if (k > 0 && (k < 10 || k >= 40)) rig.push(1, Picture(1, k).image, k * kPeriod + 2 * kMilli);
}

void test_a_camera_that_dies_leaves_holes_and_comes_back() {
  RigOptions options = absent();
  options.windows = 100;
  Rig rig(engines(1, 3, true), options);
  for (int64_t k = 0; k < 60; ++k) {
    push_with_a_death(rig, k);
    // a rig that begins waits for all cameras; when one dies it waits for the patience, 0.1 s, once
    const int64_t waiting = k == 0 || (k >= 10 && k < 13) ? (k == 0 ? 1 : k - 9) : 0;
    CHECK(rig.counts().times == k + 1 - waiting);
  }
  const CameraCounts lost = rig.counts(1);
  CHECK(lost.used == 28 && lost.late == 1 && lost.absent == 32 && lost.repeated == 0 && lost.unmatched == 0);
  for (const int c : {0, 2}) CHECK(rig.counts(c).used == 60 && rig.counts(c).absent == 0 && rig.counts(c).late == 0);
  CHECK(rig.counts().windows == 60 && rig.counts().windows_with_holes == 32);
  Window window;
  for (int64_t k = 0; k < 60; ++k) {
    CHECK(rig.take(window));
    for (const int c : {0, 2})
      CHECK(window.present[c] == 1 && shows(window.images[c], c, k) && window.stamps[c] == k * kPeriod);
    CHECK(!window.repeated[1]);
    if (k == 0 || (k >= 10 && k <= 40)) {
      CHECK(window.present[1] == 0 && is_black(window.images[1]) && window.stamps[1] == kNoStamp);
    } else {
      CHECK(window.present[1] == 1 && shows(window.images[1], 1, k) && window.stamps[1] == k * kPeriod + 2 * kMilli);
    }
    rig.release(window);
  }
}

// Timesteps that windows share have the same holes; every window with one is counted once.
void test_windows_that_overlap_share_their_holes() {
  RigOptions options = absent();
  options.stride = 1, options.windows = 100;
  Rig rig(engines(3, 3, true), options);
  for (int64_t k = 0; k < 60; ++k) push_with_a_death(rig, k);
  std::map<int64_t, std::vector<int>> seen;
  int64_t with_holes = 0;
  Window window;
  while (rig.take(window)) {
    bool has_hole = false;
    for (int64_t t = 0; t < 3; ++t) {
      const std::vector<int> present(window.present + t * 3, window.present + t * 3 + 3);
      CHECK(seen.emplace(window.number + t, present).first->second == present);
      has_hole = has_hole || present[1] == 0;
    }
    with_holes += has_hole;
    CHECK(window.shared == (window.number == 0 ? 0 : 2));
    rig.release(window);
  }
  CHECK(rig.counts().windows == 58 && with_holes == rig.counts().windows_with_holes);
  CHECK(with_holes == 1 + 33);  // from 0, and from 8 to 40
}

void test_all_cameras_but_one_die() {
  Rig rig(engines(1, 4, true), absent());
  Window window;
  for (int64_t k = 0; k < 20; ++k)
    for (int c = 0; c < 4; ++c) {
      if (c == 0 || k < 5) rig.push(c, Picture(c, k).image, k * kPeriod);
      while (rig.take(window)) {
        CHECK(window.present[0] == 1);
        rig.release(window);
      }
    }
  CHECK(rig.counts().times == 20 && rig.counts().windows_with_holes == 15 && rig.counts().windows_dropped > 0);
}

void test_nothing_is_allocated() {
  RigOptions options = absent();
  options.stride = 1;
  Rig rig(engines(3, 3, true), options);
  Picture picture;
  Window window;
  const size_t allocated = allocations_of([&] {
    for (int64_t k = 0; k < 200; ++k) {
      for (int c = 0; c < 3; ++c) {
        if (c == 1 && k % 50 > 30) continue;
        picture.draw(c, k);
        rig.push(c, picture.image, k * kPeriod);
      }
      if (k % 3 == 0 && rig.take(window)) rig.release(window);
    }
  });
  CHECK(rig.counts().windows > 150 && rig.counts().windows_with_holes > 60 && allocated == 0);
}

}  // namespace

int main() {
  test_timesteps_are_those_of_a_naive_model();
  test_a_camera_that_dies_leaves_holes_and_comes_back();
  test_windows_that_overlap_share_their_holes();
  test_all_cameras_but_one_die();
  test_nothing_is_allocated();
}
