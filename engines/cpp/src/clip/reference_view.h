// The choice of the view that is told apart from all others, as Depth Anything 3 makes it. Mirrors
// page4d/network/reference_view.py. Nothing here allocates.
#pragma once

#include <cstdint>

namespace page4d {

// The view that is nearest to the middle of its clip, by three measures of its cls token, of equal ones the first: the
// mean cosine with the other views' tokens, the token's length, and the variance of its direction's channels.
//
// tokens: [V,C]. scratch: C + 3 V numbers. Of one or two views it is the first, and where a measure is not finite.
int64_t balanced_view(const float* tokens, int64_t V, int64_t C, double* scratch) noexcept;

}  // namespace page4d
