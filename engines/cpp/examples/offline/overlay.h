// The mask, made smooth, over a frame: the surer that something moves, the more of the frame the colour hides.
#pragma once

#include <cstdint>
#include <vector>

namespace offline {

// image: uint8 RGB [H,W,3]. mask: float32 [h,w], the probability that a patch is dynamic; clipped to 0..1, and patches
// that are not a number are cyan. It covers the whole image, whatever h and w are. Returns uint8 RGB [H,W,3].
std::vector<uint8_t> overlay(const uint8_t* image, int H, int W, const float* mask, int h, int w);

// float32 [h,w] to [H,W], bit for bit as Pillow's bilinear resize of floating-point images, antialias included.
std::vector<float> resize_bilinear(const float* source, int h, int w, int H, int W);

}  // namespace offline
