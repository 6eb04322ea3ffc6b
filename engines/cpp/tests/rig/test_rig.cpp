// Windows of a live rig: their content, the counts, and that a running rig allocates nothing.
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "page4d/rig.h"
#include "rig/rig_images.h"
#include "support/allocations.h"
#include "support/check.h"

using namespace page4d;
using rig_test::engines;
using rig_test::is_black;
using rig_test::Picture;
using rig_test::shows;

namespace {

constexpr int64_t kPeriod = 33333333, kMilli = 1000000, kSecond = 1000 * kMilli;

// Whether a rig takes stamps of this type.
template <class Stamp, class = void>
constexpr bool kIsStamp = false;
template <class Stamp>
constexpr bool kIsStamp<Stamp, std::void_t<decltype(std::declval<Rig&>().push(0, Image{}, Stamp{}))>> = true;
static_assert(kIsStamp<int64_t> && kIsStamp<int> && !kIsStamp<double> && !kIsStamp<float>);

Pushed push(Rig& rig, int camera, int64_t number, int64_t stamp) {
  return rig.push(camera, Picture(camera, number).image, stamp);
}

// All cameras' images of one timestep.
int push_time(Rig& rig, int cameras, int64_t number) {
  int ready = 0;
  for (int c = 0; c < cameras; ++c) {
    const Pushed pushed = push(rig, c, number, number * kPeriod);
    CHECK(pushed.status.ok());
    ready = pushed.ready;
  }
  return ready;
}

bool counted(const Rig& rig, int camera, int64_t used, int64_t late, int64_t unmatched, int64_t repeated) {
  const CameraCounts counts = rig.counts(camera);
  return counts.used == used && counts.late == late && counts.unmatched == unmatched && counts.repeated == repeated;
}

void test_published_is_the_way_of_the_engines() {
  EngineInfo info = engines(3, 2);
  RigOptions options;
  options.fit = Fit::kPublished;
  options.frame_width = 2000, options.frame_height = 10;
  const auto first = [&] { return refusal([&] { Rig(info, options); }).substr(0, 10); };
  CHECK_TEXT(first(), "VGGT's pub");
  info.published_fit = Fit::kPublishedDa3;
  CHECK_TEXT(first(), "Depth Anyt");
}

void test_windows_share_their_images() {
  RigOptions options;
  options.stride = 1;
  Rig rig(engines(3, 2), options);
  Window window;
  std::vector<const void*> before;
  for (int64_t k = 0; k < 50; ++k) {
    CHECK(push_time(rig, 2, k) == (k >= 2 ? 1 : 0));
    if (k < 2) continue;
    CHECK(rig.take(window));
    CHECK(window.number == k - 2);
    for (int i = 0; i < 6; ++i) CHECK(window.present[i] == 1);
    CHECK(window.shared == (k == 2 ? 0 : 2));
    for (int t = 0; t < 3; ++t) {
      for (int c = 0; c < 2; ++c) {
        const int i = t * 2 + c;
        CHECK(shows(window.images[i], c, k - 2 + t));
        CHECK(window.stamps[i] == (k - 2 + t) * kPeriod);
        CHECK(!window.repeated[i]);
        if (k > 2 && t < 2) CHECK(window.images[i].data == before[static_cast<size_t>(i + 2)]);  // not a copy
      }
    }
    before.clear();
    for (int i = 0; i < 6; ++i) before.push_back(window.images[i].data);
    rig.release(window);
    CHECK(window.images == nullptr);
  }
  const RigCounts counts = rig.counts();
  CHECK(counts.times == 50 && counts.windows == 48 && counts.windows_dropped == 0);
}

void test_windows_without_overlap_and_in_between() {
  for (const int64_t stride : {0, 2, 3}) {
    RigOptions options;
    options.stride = stride;
    options.windows = 10;
    Rig rig(engines(3, 1), options);
    for (int64_t k = 0; k < 9; ++k) push_time(rig, 1, k);
    const int64_t step = stride == 0 ? 3 : stride;
    Window window;
    for (int64_t n = 0; n * step + 3 <= 9; ++n) {
      CHECK(rig.take(window));
      CHECK(window.number == n);
      for (int64_t t = 0; t < 3; ++t) CHECK(shows(window.images[t], 0, n * step + t));
      rig.release(window);
    }
    CHECK(!rig.take(window));
  }
}

void test_skew_is_measured() {
  RigOptions options;
  options.tolerance = 0.01;
  Rig rig(engines(2, 3), options);
  const int64_t skews[] = {4 * kMilli, 9 * kMilli};
  for (int k = 0; k < 2; ++k) {
    push(rig, 2, k, k * kSecond + skews[k]);
    push(rig, 0, k, k * kSecond);
    push(rig, 1, k, k * kSecond + kMilli);
  }
  Window window;
  CHECK(rig.take(window));
  CHECK(std::abs(window.skew - 0.009) < 1e-12);
  CHECK(window.stamps[2] == 4 * kMilli && window.stamps[3] == kSecond);
  CHECK(std::abs(rig.counts().largest_skew - 0.009) < 1e-12 && std::abs(rig.counts().mean_skew - 0.0065) < 1e-12);
}

void test_late_and_unmatched_are_counted() {
  Rig rig(engines(1, 2), {});
  push(rig, 0, 0, 1000 * kMilli);
  push(rig, 0, 1, 1000 * kMilli);  // late: not after the one before
  push(rig, 1, 2, 1050 * kMilli);  // camera 1 has nothing at 1.0
  CHECK(counted(rig, 0, 0, 1, 1, 0));
  push(rig, 0, 3, 1060 * kMilli);
  CHECK(counted(rig, 0, 1, 1, 1, 0) && counted(rig, 1, 1, 0, 0, 0));
  push(rig, 0, 4, 2000 * kMilli);
  push(rig, 0, 5, 2200 * kMilli);  // too long for camera 1
  push(rig, 1, 6, 2001 * kMilli);  // late: its timestep was given up
  CHECK(counted(rig, 0, 1, 1, 2, 0) && counted(rig, 1, 1, 1, 0, 0));
  push(rig, 1, 7, 2200 * kMilli);
  CHECK(counted(rig, 0, 2, 1, 2, 0) && counted(rig, 1, 2, 1, 0, 0));
  CHECK(rig.counts(0).pushed == 5 && rig.counts(1).pushed == 3);
  CHECK(rig.counts(0).last_stamp == 2200 * kMilli && rig.counts(1).last_stamp == 2200 * kMilli);
  CHECK(rig.counts().times == 2);
}

// Camera 1 has no image of timesteps 0 and 10 to 39.
void push_with_a_death(Rig& rig, int64_t k) {
  for (const int c : {0, 2}) push(rig, c, k, k * kPeriod);
  if (k > 0 && (k < 10 || k >= 40)) push(rig, 1, k, k * kPeriod + 2 * kMilli);
}

void test_a_camera_that_dies_is_repeated_and_comes_back() {
  RigOptions options;
  options.missing = Missing::kRepeat;
  options.windows = 100;
  Rig rig(engines(1, 3), options);
  for (int64_t k = 0; k < 60; ++k) push_with_a_death(rig, k);
  CHECK(rig.counts().times == 60 && rig.counts().windows == 60);
  CHECK(counted(rig, 0, 60, 0, 0, 0) && counted(rig, 1, 29, 0, 0, 31) && counted(rig, 2, 60, 0, 0, 0));
  Window window;
  for (int64_t k = 0; k < 60; ++k) {
    CHECK(rig.take(window));
    const int64_t stamp = k * kPeriod;
    CHECK(shows(window.images[0], 0, k) && window.stamps[0] == stamp && !window.repeated[0]);
    CHECK(shows(window.images[2], 2, k) && window.stamps[2] == stamp && !window.repeated[2]);
    if (k == 0) {
      CHECK(is_black(window.images[1]) && window.repeated[1] && window.stamps[1] == kNoStamp);
    } else if (k >= 10 && k < 40) {
      CHECK(shows(window.images[1], 1, 9) && window.repeated[1] && window.stamps[1] == 9 * kPeriod + 2 * kMilli);
    } else {
      CHECK(shows(window.images[1], 1, k) && !window.repeated[1]);
    }
    CHECK(std::abs(window.skew - (window.repeated[1] ? 0 : 0.002)) < 1e-12);  // of the timestep's own images
    rig.release(window);
  }
}

void test_a_camera_that_dies_stops_the_windows_and_comes_back() {
  RigOptions options;
  options.windows = 100;
  Rig rig(engines(1, 3), options);
  for (int64_t k = 0; k < 60; ++k) push_with_a_death(rig, k);
  CHECK(rig.counts().times == 29);
  CHECK(counted(rig, 0, 29, 0, 31, 0) && counted(rig, 1, 29, 0, 0, 0) && counted(rig, 2, 29, 0, 31, 0));
  Window window;
  for (int64_t k = 1; rig.take(window); ++k) {
    const int64_t time = k < 10 ? k : k + 30;
    for (int c = 0; c < 3; ++c) CHECK(shows(window.images[c], c, time));
    rig.release(window);
  }
}

void test_a_slow_consumer_keeps_what_it_took() {
  RigOptions options;
  options.stride = 1;
  options.windows = 2;
  Rig rig(engines(2, 2), options);
  for (int64_t k = 0; k < 2; ++k) push_time(rig, 2, k);
  Window window;
  CHECK(rig.take(window));
  for (int64_t k = 2; k < 40; ++k) {
    CHECK(push_time(rig, 2, k) == (k == 2 ? 1 : 2));
    for (int i = 0; i < 4; ++i) CHECK(shows(window.images[i], i % 2, i / 2));
  }
  CHECK(rig.counts().windows == 39 && rig.counts().windows_dropped == 36);
  rig.release(window);
  for (const int64_t number : {37, 38}) {  // the newest are left
    CHECK(rig.take(window));
    CHECK(window.number == number && shows(window.images[0], 0, number) && shows(window.images[3], 1, number + 1));
    CHECK(window.shared == (number == 37 ? 0 : 1));  // with the one taken before, not with those that were dropped
    rig.release(window);
  }
  CHECK(!rig.take(window));
}

void test_what_is_taken_and_released_wrongly() {
  Rig rig(engines(1, 1), {});
  Window window, other;
  CHECK(!rig.take(window) && window.images == nullptr);
  rig.release(window);
  push_time(rig, 1, 0);
  push_time(rig, 1, 1);
  CHECK(rig.take(window));
  const Window copy = window;
  CHECK(!rig.take(other) && other.images == nullptr);
  CHECK(!rig.take(window) && window.images == copy.images && window.number == 0);  // still held
  rig.release(other);                                                              // not the one that was taken
  CHECK(!rig.take(other));
  rig.release(window);
  CHECK(rig.take(other) && other.number == 1);
  push_time(rig, 1, 2);
  window = copy;
  rig.release(window);  // was released before
  CHECK(!rig.take(window) && shows(other.images[0], 0, 1));
  Rig moved = std::move(rig);
  moved.release(other);
  CHECK(moved.take(other) && shows(other.images[0], 0, 2));
}

void test_the_smallest_rig_has_slots_enough() {
  RigOptions options;
  options.stride = options.windows = options.pending = 1;
  Rig rig(engines(1, 2), options);
  Window window;
  push_time(rig, 2, 0);
  CHECK(rig.take(window));
  push_time(rig, 2, 1);                                           // ready
  for (int64_t k = 2; k < 10; ++k) push(rig, 1, k, k * kPeriod);  // one waits, one is written
  CHECK(counted(rig, 1, 2, 0, 7, 0));
  CHECK(push(rig, 0, 9, 9 * kPeriod).ready == 1);
  for (int c = 0; c < 2; ++c) CHECK(shows(window.images[c], c, 0));
  rig.release(window);
  CHECK(rig.take(window));
  for (int c = 0; c < 2; ++c) CHECK(shows(window.images[c], c, 9));
}

void test_what_cannot_be_pushed() {
  Rig rig(engines(1, 2), {});
  const Picture picture(0, 0);
  const auto refused = [&](int camera, const Image& image, int64_t stamp) {
    const Pushed pushed = rig.push(camera, image, stamp);
    CHECK(pushed.status.code == Code::kUsage && pushed.ready == 0);
    return std::string(pushed.status.message);
  };
  CHECK_TEXT(refused(-1, picture.image, 0), "there is no such camera\n  allowed: 0 to 1");
  CHECK_TEXT(refused(2, picture.image, 0), "there is no such camera\n  allowed: 0 to 1");
  CHECK_TEXT(refused(0, {}, 0), "the image has no pixels");
  Image image = picture.image;
  image.height = 14;
  CHECK_TEXT(refused(0, image, 0), "the image is not of the size that the rig was made for\n  allowed: 42x28");
  image = picture.image;
  image.pitch = 42;
  CHECK_TEXT(refused(0, image, 0), "the image's rows overlap");
  image = picture.image;
  image.memory = Memory::kDevice;
  CHECK_TEXT(refused(0, image, 0), "the image is not in host memory");
  CHECK_TEXT(refused(0, picture.image, kNoStamp), "the image has no stamp");
  CHECK(rig.counts(0).pushed == 0 && rig.counts(0).last_stamp == kNoStamp);
  for (const int camera : {-1, 2}) CHECK(rig.counts(camera).pushed == 0 && rig.counts(camera).last_stamp == kNoStamp);
  CHECK(push_time(rig, 2, 0) == 1);  // and goes on
}

// Stamps since 1970 differ by nanoseconds, which doubles of seconds cannot.
void test_stamps_are_exact_to_the_nanosecond() {
  constexpr int64_t kNow = 1790000000123456789;
  RigOptions options;
  options.tolerance = options.patience = 100e-9;
  Rig rig(engines(1, 2), options);
  push(rig, 0, 0, kNow);
  push(rig, 1, 0, kNow + 101);  // outside the tolerance by a nanosecond
  CHECK(counted(rig, 0, 0, 0, 1, 0));
  push(rig, 0, 1, kNow + 1);  // inside by one
  Window window;
  CHECK(rig.take(window) && window.stamps[0] == kNow + 1 && window.stamps[1] == kNow + 101);
  CHECK(window.skew == 100e-9 && rig.counts(1).last_stamp == kNow + 101);
}

// The largest differences of stamps, and times that are longer than can be counted.
void test_stamps_at_the_ends_of_time() {
  constexpr int64_t kFirst = kNoStamp + 1, kLast = INT64_MAX;
  for (const double patience : {0.1, 1e300}) {
    RigOptions options;
    options.patience = patience;
    Rig rig(engines(1, 2), options);
    for (const int64_t stamp : {kFirst, kLast})
      for (int c = 0; c < 2; ++c) CHECK(push(rig, c, 0, stamp).status.ok());
    CHECK(rig.counts().times == 2 && rig.counts().largest_skew == 0);
  }
  RigOptions options;
  options.tolerance = options.patience = 1e300;
  Rig rig(engines(1, 2), options);
  push(rig, 0, 0, kFirst);
  push(rig, 1, 0, kLast);
  CHECK(rig.counts().times == 1 && rig.counts().largest_skew > 9e9);
  push(rig, 0, 1, kLast);
  CHECK(rig.counts(0).late == 0);
}

void test_a_closed_rig_takes_no_images_and_keeps_its_windows() {
  Rig rig(engines(1, 1), {});
  push_time(rig, 1, 0);
  CHECK(rig.wait(0) && !rig.closed());
  rig.close();
  rig.close();
  CHECK(rig.closed() && !rig.wait(1e9));  // at once, although a window is ready
  const Pushed pushed = push(rig, 0, 1, kPeriod);
  CHECK(pushed.status.code == Code::kUsage && pushed.ready == 1);
  CHECK_TEXT(pushed.status.message, "the rig is closed");
  Window window;
  CHECK(rig.take(window) && shows(window.images[0], 0, 0) && rig.counts(0).pushed == 1);
  rig.release(window);
  CHECK(!rig.take(window));
}

void test_what_no_rig_is_made_of() {
  const auto refused = [](auto change) {
    EngineInfo info = engines(3, 2);
    RigOptions options;
    change(info, options);
    return refusal([&] { Rig(info, options); });
  };
  CHECK_TEXT(refused([](auto&, auto& options) { options.stride = 4; }),
             "the stride between windows is out of range\n  got:     4\n  allowed: 1 to T = 3\n  try:     "
             "RigOptions::stride = 3");
  CHECK_TEXT(refused([](auto&, auto& options) { options.stride = -1; }),
             "the stride between windows is out of range\n  got:     -1\n  allowed: 1 to T = 3\n  try:     "
             "RigOptions::stride = 1");
  CHECK_TEXT(refused([](auto&, auto& options) { options.tolerance = -1; }),
             "the tolerance between stamps is out of range\n  got:     -1\n  allowed: seconds, 0 or more");
  CHECK_TEXT(refused([](auto&, auto& options) { options.tolerance = std::nan(""); }),
             "the tolerance between stamps is out of range\n  got:     nan\n  allowed: seconds, 0 or more");
  CHECK_TEXT(refused([](auto&, auto& options) { options.patience = 0.01; }),
             "the patience with a camera is out of range\n  got:     0.01\n  allowed: seconds, the tolerance of 0.015 "
             "or more");
  CHECK_TEXT(refused([](auto&, auto& options) { options.windows = 0; }),
             "the number of windows that are kept is out of range\n  got:     0\n  allowed: 1 to 1000");
  CHECK_TEXT(refused([](auto&, auto& options) { options.pending = 1001; }),
             "the number of images that wait is out of range\n  got:     1001\n  allowed: 1 to 1000");
  CHECK_TEXT(refused([](auto&, auto& options) { options.missing = Missing::kAbsent; }),
             "these engines need every image of a timestep\n  got:     Missing::kAbsent\n  allowed: Missing::kSkip, "
             "Missing::kRepeat\n  try:     page4d-export --absent-views");
  CHECK_TEXT(refused([](auto& info, auto&) { info.layout.B = 2; }),
             "frames are read for one clip at a time\n  got:     B = 2\n  allowed: an engine for B = 1");
  CHECK(refused([](auto&, auto& options) { options.frame_width = 420; }).find("aspect ratio") != std::string::npos);
}

void test_images_come_to_the_engines_size() {
  RigOptions options;
  options.frame_width = 84;
  options.frame_height = 56;
  Rig rig(engines(1, 1), options);
  const std::vector<uint8_t> grey(84 * 56, 90);
  CHECK(rig.push(0, {grey.data(), 84, 56, 0, PixelFormat::kMono8, Memory::kHost}, 0).ready == 1);
  Window window;
  CHECK(rig.take(window) && window.images[0].width == 42 && window.images[0].height == 28 &&
        window.images[0].format == PixelFormat::kRgb8);
  for (int i = 0; i < 42 * 28 * 3; ++i) CHECK(static_cast<const uint8_t*>(window.images[0].data)[i] == 90);
}

// A camera's own format, with its second plane elsewhere.
void test_formats_of_cameras_are_taken() {
  RigOptions options;
  options.frame_width = 84;
  options.frame_height = 56;
  options.windows = 2;
  Rig rig(engines(1, 1), options);
  const std::vector<uint8_t> luma(84 * 56, 126), chroma(84 * 28, 128);  // the middle of 16 to 235: grey
  Image image{luma.data(), 84, 56, 0, PixelFormat::kNv12, Memory::kHost, chroma.data(), 84};
  Pushed pushed;
  CHECK(allocations_of([&] { pushed = rig.push(0, image, 0); }) == 0);
  CHECK(pushed.status.ok() && pushed.ready == 1);
  Window window;
  CHECK(rig.take(window) && window.images[0].format == PixelFormat::kRgb8 && window.images[0].chroma == nullptr);
  for (int i = 0; i < 42 * 28 * 3; ++i) CHECK(static_cast<const uint8_t*>(window.images[0].data)[i] == 128);
  image.chroma_pitch = 83;
  CHECK_TEXT(rig.push(0, image, 1).status.message,
             "the rows of an image's second plane overlap\n  allowed: a chroma_pitch of its width or more, or 0");
  image.format = PixelFormat::kUyvy;
  image.pitch = 167;
  CHECK_TEXT(rig.push(0, image, 1).status.message, "the image's rows overlap");
  CHECK(rig.counts(0).pushed == 1);
}

void test_nothing_is_allocated() {
  RigOptions options;
  options.stride = 1;
  options.missing = Missing::kRepeat;
  Rig rig(engines(3, 3), options);
  Picture picture;
  Window window;
  int64_t windows = 0;
  const size_t allocated = allocations_of([&] {
    for (int64_t k = 0; k < 200; ++k) {
      for (int c = 0; c < 3; ++c) {
        if (c == 1 && k % 50 > 30) continue;
        picture.draw(c, k);
        rig.push(c, picture.image, k * kPeriod);
        rig.push(c, picture.image, (k - 1) * kPeriod);  // late
        rig.push(3, picture.image, 0);                  // refused
      }
      if (k % 7 == 0 && rig.wait(0) && rig.take(window)) ++windows;
      if (k % 7 == 5) rig.release(window);
    }
  });
  CHECK(rig.counts().windows > 150 && windows > 20 && rig.counts(1).repeated > 60);
  CHECK(allocated == 0);
}

}  // namespace

int main() {
  test_published_is_the_way_of_the_engines();
  test_windows_share_their_images();
  test_windows_without_overlap_and_in_between();
  test_skew_is_measured();
  test_late_and_unmatched_are_counted();
  test_a_camera_that_dies_is_repeated_and_comes_back();
  test_a_camera_that_dies_stops_the_windows_and_comes_back();
  test_a_slow_consumer_keeps_what_it_took();
  test_what_is_taken_and_released_wrongly();
  test_the_smallest_rig_has_slots_enough();
  test_what_cannot_be_pushed();
  test_stamps_are_exact_to_the_nanosecond();
  test_stamps_at_the_ends_of_time();
  test_a_closed_rig_takes_no_images_and_keeps_its_windows();
  test_what_no_rig_is_made_of();
  test_images_come_to_the_engines_size();
  test_formats_of_cameras_are_taken();
  test_nothing_is_allocated();
}
