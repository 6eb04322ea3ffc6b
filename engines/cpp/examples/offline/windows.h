// The windows of a clip.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "page4d/error.h"

namespace offline {

// First times of the windows of T times that cover `count`: 0, stride, 2 stride, ...; where times are left over, a last
// one that ends with them. Throws page4d::Error kUsage: fewer times than T, or a stride below 1 or above T (which would
// skip some).
inline std::vector<int64_t> windows(int64_t count, int64_t T, int64_t stride) {
  using page4d::Code;
  using page4d::Error;
  if (stride < 1 || stride > T) {
    throw Error(Code::kUsage, "the stride between windows is out of range")
        .got(std::to_string(stride))
        .allowed("1 to T = " + std::to_string(T))
        .hint("--stride " + std::to_string(std::clamp<int64_t>(stride, 1, T)));
  }
  if (count < T) {
    throw Error(Code::kUsage, "the clip has fewer frames than a window")
        .got(std::to_string(count) + " frames")
        .allowed("T = " + std::to_string(T) + " or more")
        .hint("page4d-export --T " + std::to_string(std::max<int64_t>(count, 1)) + ", or more frames");
  }
  std::vector<int64_t> starts;
  for (int64_t start = 0; start + T <= count; start += stride) starts.push_back(start);
  if (starts.back() + T < count) starts.push_back(count - T);
  return starts;
}

}  // namespace offline
