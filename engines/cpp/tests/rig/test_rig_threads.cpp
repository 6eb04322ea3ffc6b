// A rig used by several threads, with any order of calls. For the thread sanitizer, too.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "page4d/rig.h"
#include "rig/rig_images.h"
#include "support/check.h"

using namespace page4d;
using rig_test::engines;
using rig_test::is_black;
using rig_test::Picture;
using rig_test::shows;

namespace {

constexpr int64_t kPeriod = 33333333, kMilli = 1000000;

int64_t number_of(int64_t stamp) { return (stamp + kPeriod / 2) / kPeriod; }

// What holds for any window, whatever was pushed: every image has its own stamp, every timestep has an image of its
// own, and a camera's images are in order.
void check_window(const Window& window, int T, int V) {
  for (int t = 0; t < T; ++t) {
    int own = 0;
    for (int i = t * V; i < (t + 1) * V; ++i) {
      own += !window.repeated[i] && window.present[i] == 1;
      if (window.stamps[i] == kNoStamp) {
        CHECK(window.repeated[i] == (window.present[i] == 1) && is_black(window.images[i]));
        continue;
      }
      CHECK(window.present[i] == 1 && shows(window.images[i], i % V, number_of(window.stamps[i])));
      if (t == 0 || window.stamps[i - V] == kNoStamp) continue;
      CHECK(window.repeated[i] ? window.stamps[i] == window.stamps[i - V] : window.stamps[i] > window.stamps[i - V]);
    }
    CHECK(own > 0);
  }
}

// Every image is counted as used, late or unmatched, or still waits.
void check_counts(const Rig& rig, int V, int pending) {
  for (int c = 0; c < V; ++c) {
    const CameraCounts counts = rig.counts(c);
    const int64_t waiting = counts.pushed - counts.used - counts.late - counts.unmatched;
    CHECK(waiting >= 0 && waiting <= pending);
  }
}

// As fast as the threads run: camera 3 is silent for the second third of the images.
void test_four_cameras_push_while_windows_are_taken(Missing missing) {
  constexpr int kT = 2, kV = 4;
  constexpr int64_t kImages = 240;
  RigOptions options;
  options.stride = 1;
  options.missing = missing;
  options.patience = 1e9;  // threads run ahead of one another as they like
  options.pending = 300;
  Rig rig(engines(kT, kV, true), options);

  std::vector<std::thread> cameras;
  for (int c = 0; c < kV; ++c)
    cameras.emplace_back([&rig, c] {
      std::mt19937 random(static_cast<unsigned>(c));
      std::uniform_int_distribution<int64_t> jitter(-7 * kMilli, 7 * kMilli);
      Picture picture;
      for (int64_t k = 0; k < kImages; ++k) {
        const int64_t stamp = (k + 1) * kPeriod + jitter(random);
        if (c == 3 && k >= kImages / 3 && k < kImages / 3 * 2) continue;
        picture.draw(c, k + 1);
        CHECK(rig.push(c, picture.image, stamp).status.ok());
      }
    });

  const int64_t times = missing == Missing::kSkip ? kImages / 3 * 2 : kImages;
  int64_t windows = 0, last = -1;
  Window window;
  while (last < times - kT && rig.wait(20)) {  // the newest window is never dropped
    CHECK(rig.take(window));
    CHECK(window.number > last);
    last = window.number;
    check_window(window, kT, kV);
    CHECK(window.skew <= options.tolerance);
    if (++windows % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    check_window(window, kT, kV);
    rig.release(window);
    check_counts(rig, kV, options.pending + 1);
  }
  for (std::thread& camera : cameras) camera.join();
  const RigCounts counts = rig.counts();
  CHECK(last == times - kT);
  CHECK(counts.times == times && counts.windows == times - kT + 1 &&
        counts.windows == windows + counts.windows_dropped);
  for (int c = 0; c < kV; ++c) CHECK(rig.counts(c).late == 0);
  CHECK(rig.counts(3).used == kImages / 3 * 2 && rig.counts(0).unmatched == kImages - rig.counts(0).used);
}

// Frames that take a while to be resized.
struct Large {
  static constexpr int kScale = 8;
  std::vector<uint8_t> bytes =
      std::vector<uint8_t>(size_t{rig_test::kHeight} * rig_test::kWidth * kScale * kScale * 3, 77);
  Image image{bytes.data(), rig_test::kWidth* kScale, rig_test::kHeight* kScale};

  static RigOptions options() {
    RigOptions options;
    options.frame_width = rig_test::kWidth * kScale;
    options.frame_height = rig_test::kHeight * kScale;
    return options;
  }
};

// Two threads for one camera: if they push at once, one of them is refused. Every image is counted.
void test_two_threads_of_one_camera() {
  Rig rig(engines(1, 1), Large::options());
  const Large frame;
  std::atomic<int64_t> accepted{0}, refused{0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&] {
      for (int k = 0; refused == 0 && std::chrono::steady_clock::now() < end; ++k) {
        const Pushed pushed = rig.push(0, frame.image, k * kPeriod);
        ++(pushed.status.ok() ? accepted : refused);
        if (!pushed.status.ok()) CHECK_TEXT(pushed.status.message, "another thread pushes an image of this camera");
      }
    });
  for (std::thread& thread : threads) thread.join();
  const CameraCounts counts = rig.counts(0);
  CHECK(refused > 0);
  CHECK(counts.pushed == accepted && counts.used + counts.late == accepted);
}

// Timesteps are given up while their images are resized: those slots are freed, too.
void test_images_become_late_on_their_way() {
  RigOptions options = Large::options();
  options.tolerance = options.patience = 0.001;
  options.missing = Missing::kRepeat;
  options.windows = options.pending = 1;
  Rig rig(engines(1, 2), options);
  const Large frame;
  std::vector<std::thread> threads;
  for (int c = 0; c < 2; ++c)
    threads.emplace_back([&, c] {
      for (int k = 0; k < 60; ++k) CHECK(rig.push(c, frame.image, k * kPeriod).status.ok());
    });
  for (std::thread& thread : threads) thread.join();
  for (int c = 0; c < 2; ++c) CHECK(rig.counts(c).used + rig.counts(c).repeated == rig.counts().times);
  check_counts(rig, 2, 1);
}

void test_waiting_ends() {
  Rig rig(engines(1, 1), {});
  for (const double seconds : {0.0, -1.0, std::nan(""), 0.01}) CHECK(!rig.wait(seconds));
  std::thread camera([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    rig.push(0, Picture(0, 1).image, kPeriod);
  });
  CHECK(rig.wait(1e300));
  camera.join();
  CHECK(rig.wait(0));
}

// From another thread, by a wait without end as by one that has ended.
void test_closing_wakes_who_waits() {
  Rig rig(engines(1, 1), {});
  std::atomic<bool> has_ended{false};
  std::thread consumer([&] {
    CHECK(!rig.wait(INFINITY));
    has_ended = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!has_ended);
  std::vector<std::thread> closers;
  for (int i = 0; i < 2; ++i) closers.emplace_back([&] { rig.close(); });
  for (std::thread& closer : closers) closer.join();
  consumer.join();
  CHECK(has_ended && !rig.wait(INFINITY));
}

// Cameras push and windows are taken while the rig is closed: every window that was completed is taken or counted.
void test_closing_a_rig_in_use() {
  RigOptions options;
  options.patience = 1e9;
  options.pending = 300;
  Rig rig(engines(2, 2), options);
  std::vector<std::thread> cameras;
  for (int c = 0; c < 2; ++c)
    cameras.emplace_back([&rig, c] {
      const Picture picture(c, 1);
      for (int64_t k = 0; rig.push(c, picture.image, k * kPeriod).status.ok(); ++k) std::this_thread::yield();
    });
  int64_t windows = 0;
  Window window;
  const auto take_all = [&] {
    for (; rig.take(window); ++windows) rig.release(window);
  };
  while (rig.wait(INFINITY)) {
    take_all();
    if (windows > 20) rig.close();
  }
  for (std::thread& camera : cameras) camera.join();
  take_all();
  CHECK(windows > 20 && windows + rig.counts().windows_dropped == rig.counts().windows);
}

// Cameras with clocks: one thread each. Camera 2 dies, and windows go on; it comes back, and they are whole again.
void test_a_thread_that_dies() {
  constexpr int kT = 2, kV = 3;
  RigOptions options;
  options.missing = Missing::kAbsent;
  options.patience = 0.25, options.pending = 100, options.stride = 1;
  Rig rig(engines(kT, kV, true), options);
  std::atomic<int> phase{0};  // 0: all live, 1: camera 2 is dead, 2: it is back, 3: the end
  std::vector<std::thread> cameras;
  for (int c = 0; c < kV; ++c)
    cameras.emplace_back([&, c] {
      Picture picture;
      const auto start = std::chrono::steady_clock::now();
      for (int64_t k = 1; phase < 3; ++k) {
        std::this_thread::sleep_until(start + std::chrono::milliseconds(30 * k));
        picture.draw(c, k);
        if (c < 2 || phase != 1) CHECK(rig.push(c, picture.image, k * 30 * kMilli).status.ok());
      }
    });
  const auto ends = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  int seen = 0;  // windows of a phase that are as they should be
  Window window;
  while (phase < 3 && std::chrono::steady_clock::now() < ends) {
    if (!rig.wait(1) || !rig.take(window)) continue;
    bool whole = true, without = true;
    for (int i = 0; i < kT * kV; ++i) {
      CHECK(window.present[i] == 1 ? shows(window.images[i], i % kV, window.stamps[i] / (30 * kMilli))
                                   : window.stamps[i] == kNoStamp && is_black(window.images[i]));
      whole = whole && window.present[i] == 1;
      without = without && (window.present[i] == 1) == (i % kV != 2);
    }
    rig.release(window);
    seen += phase == 1 ? without : whole;
    if (seen == 10) ++phase, seen = 0;
  }
  CHECK(phase == 3);
  for (std::thread& camera : cameras) camera.join();
  CHECK(rig.counts(2).absent >= 10 && rig.counts().windows_with_holes >= 10);
}

// A random rig, the smallest included; windows are checked as long as they are held.
void test_any_order_of_calls(unsigned seed) {
  std::mt19937 random(seed);
  const auto up_to = [&](unsigned most) { return static_cast<int>(random() % (most + 1)); };
  const int T = 1 + up_to(2), V = 1 + up_to(2);
  RigOptions options;
  options.stride = up_to(static_cast<unsigned>(T));
  options.windows = 1 + up_to(2);
  options.pending = 1 + up_to(4);
  options.patience = 0.02 + 0.05 * up_to(3);
  options.missing = static_cast<Missing>(up_to(2));
  Rig rig(engines(T, V, true), options);
  std::vector<int64_t> next(static_cast<size_t>(V), 1);
  std::map<int64_t, std::vector<int64_t>> seen;  // by timestep: its stamps in the windows taken so far
  const int64_t stride = options.stride == 0 ? T : options.stride;
  std::uniform_int_distribution<int64_t> jitter(-6 * kMilli, 6 * kMilli);
  Picture picture;
  Window window;
  bool held = false;
  int64_t windows = 0;
  for (int step = 0; step < 200; ++step) {
    const int camera = up_to(static_cast<unsigned>(V - 1));
    int64_t& number = next[static_cast<size_t>(camera)];
    number += up_to(9) == 0 ? up_to(8) : 1;
    if (up_to(19) == 0) number = std::max<int64_t>(1, number - 5);
    picture.draw(camera, number);
    CHECK(rig.push(camera, picture.image, number * kPeriod + jitter(random)).status.ok());
    if (held) check_window(window, T, V);
    if (held && up_to(3) == 0) {
      rig.release(window);
      held = false;
    }
    if (!held && up_to(2) == 0 && rig.take(window)) {
      held = true;
      ++windows;
      check_window(window, T, V);
      for (int t = 0; t < T; ++t) {
        const std::vector<int64_t> stamps(window.stamps + t * V, window.stamps + (t + 1) * V);
        // a timestep has the same stamps in every window
        CHECK(seen.emplace(window.number * stride + t, stamps).first->second == stamps);
      }
    }
    check_counts(rig, V, options.pending);
    const RigCounts counts = rig.counts();
    for (int c = 0; c < V; ++c) {
      const CameraCounts of = rig.counts(c);
      CHECK(of.used + of.repeated + of.absent == counts.times);
      CHECK((of.repeated == 0 || options.missing == Missing::kRepeat) &&
            (of.absent == 0 || options.missing == Missing::kAbsent));
    }
    CHECK(counts.windows_with_holes <= counts.windows);
    CHECK(counts.windows == (counts.times < T ? 0 : (counts.times - T) / stride + 1));
    CHECK(counts.windows - counts.windows_dropped - windows == rig.push(-1, picture.image, 0).ready);
  }
}

}  // namespace

int main() {
  test_four_cameras_push_while_windows_are_taken(Missing::kSkip);
  test_four_cameras_push_while_windows_are_taken(Missing::kRepeat);
  test_four_cameras_push_while_windows_are_taken(Missing::kAbsent);
  test_two_threads_of_one_camera();
  test_images_become_late_on_their_way();
  test_waiting_ends();
  test_a_thread_that_dies();
  test_closing_wakes_who_waits();
  test_closing_a_rig_in_use();
  for (unsigned seed = 0; seed < 100; ++seed) test_any_order_of_calls(seed);
}
