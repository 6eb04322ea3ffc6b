// Which kernels there are: how keys are chosen and biased, the data types, the tile of a kernel. Mirrors modes.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace page4d::plugin {

// Channels of a head in the pack.
inline constexpr int64_t kHeadDim = 64;

// The compute capability, times ten, whose PTX a driver can compile for any newer one.
inline constexpr int kFallback = 80;

// Type of q, k, v and the output; products and softmax are computed in float32.
enum class Dtype { kFloat16, kBfloat16 };

// Which keys a group of queries reads: one range, the ranges in a CSR list, or all keys, view by view with epipolar
// lines.
enum class Keys { kRange, kSegments, kViews };

// What a kernel computes, beyond softmax(q k / sqrt(D)) v.
enum class Mode {
  kDense,
  kBiased,          // a bias per key
  kRows,            // a bias per key, for the leading rows of every period only
  kEpipolar,        // a bias per key, and a penalty off the epipolar line
  kSegments,        // key segments by query group, a bias per key
  kSegmentsBiased,  // the same, and a bias per head and segment
  kPartial,         // one part of the keys: a float32 result with its log-sum-exp, to be merged
  kPartialBiased,   // one part of the keys, a bias per key
};

// The tile sizes of a kernel that its launch depends on: queries and keys per block, and whether K and V are passed as
// descriptors.
struct Tile {
  int64_t queries;
  int64_t keys;
  bool descriptors;
};

std::string_view name_of(Dtype dtype);  // in the pack
std::string_view name_of(Mode mode);    // in the pack, after attention_

// The type by PyTorch's name for it. Throws Error for a type that no kernel computes in.
Dtype dtype_named(std::string_view name);

bool has_bias(Mode mode);
Keys keys_of(Mode mode);

// The mode that computes one part of a mode's keys; nothing if its keys cannot be split.
std::optional<Mode> of_parts(Mode mode);

}  // namespace page4d::plugin
