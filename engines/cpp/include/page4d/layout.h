// The shape of a clip, as page4d.layout.Layout: the only place where a count is computed from it.
#pragma once

#include <cstdint>

namespace page4d {

// T times seen by V views at H x W pixels, B clips side by side. Fixed per engine folder.
struct Layout {
  static constexpr int64_t kPatch = 14;
  static constexpr int64_t kRegisters = 4;

  int64_t T = 1, V = 1, H = kPatch, W = kPatch, B = 1;

  constexpr int64_t h() const { return H / kPatch; }
  constexpr int64_t w() const { return W / kPatch; }
  constexpr int64_t P() const { return h() * w(); }
  // One camera token, then the registers, in front of the patches.
  constexpr int64_t special() const { return 1 + kRegisters; }
  constexpr int64_t N() const { return special() + P(); }
  // Of one clip, t slow, v fast.
  constexpr int64_t frames() const { return T * V; }
  constexpr int64_t images() const { return B * frames(); }
  // Of an image in the engines' size, RGB.
  constexpr int64_t image_bytes() const { return H * W * 3; }
};

}  // namespace page4d
