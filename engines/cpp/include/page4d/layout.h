// The shape of a clip, as page4d.layout.Layout, and every count that follows from it.
#pragma once

#include <cstdint>

namespace page4d {

// T timesteps of V views at H x W pixels, B clips at once. Fixed for an engine folder.
struct Layout {
  static constexpr int64_t kPatch = 14;
  static constexpr int64_t kRegisters = 4;

  int64_t T = 1, V = 1, H = kPatch, W = kPatch, B = 1;
  int64_t registers = kRegisters;  // register tokens of an image: kRegisters, or 0 as the model has them

  constexpr int64_t h() const { return H / kPatch; }
  constexpr int64_t w() const { return W / kPatch; }
  constexpr int64_t P() const { return h() * w(); }
  // Tokens before the patches: a camera token, then the registers.
  constexpr int64_t special() const { return 1 + registers; }
  constexpr int64_t N() const { return special() + P(); }
  // Of one clip, t slow, v fast.
  constexpr int64_t frames() const { return T * V; }
  constexpr int64_t images() const { return B * frames(); }
  // Of an RGB image in the engines' size.
  constexpr int64_t image_bytes() const { return H * W * 3; }
};

}  // namespace page4d
