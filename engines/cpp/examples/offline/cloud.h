// The coloured points of a window, in the world, and the PLY file that viewers open.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace offline {

// A logit as a probability; NaN stays NaN.
float probability(float logit);

// What an engine says of one image.
struct View {
  int H, W;
  const uint8_t* image;     // RGB [H,W,3]
  const float* points;      // [H,W,3], each pixel's point in its camera's frame: x right, y down, z forward
  const float* confidence;  // [H,W], logits
  const double* camera;     // [4,4], camera to world
};

// n points; every number is finite.
struct Cloud {
  std::vector<float> points;      // [n,3], in the world, in the clip's own unit
  std::vector<uint8_t> colours;   // RGB [n,3]
  std::vector<float> confidence;  // [n], the probability that the point is right

  size_t size() const { return confidence.size(); }
  // Left out are pixels with a number that is not finite or a depth that is not positive, pixels whose probability is
  // below `min_confidence`, and "flying pixels", where the depth slides from a near surface to a far one: the depth of
  // one of their eight neighbours differs by more than `edges`, a share of their own. Where most of an image would be
  // such, it has no surfaces that they could hang between, and is kept whole.
  void add(const View& view, float min_confidence, float edges = 0.03F);
};

// Binary little-endian: x, y, z and confidence as float, red, green and blue as uchar. Throws
// std::filesystem::filesystem_error.
void write_ply(const std::filesystem::path& path, const Cloud& cloud);

}  // namespace offline
