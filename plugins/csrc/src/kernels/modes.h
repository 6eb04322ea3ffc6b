// What kernels there are: the ways keys are chosen and biased, the number types, the tile of a kernel. Mirrors
// modes.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace page4d::plugin {

// Channels of a head in the pack.
inline constexpr int64_t kHeadDim = 64;

// The compute capability, times ten, whose PTX a driver can compile for any newer one.
inline constexpr int kFallback = 80;

// Type of q, k, v and the output; products and softmax are float32 in both.
enum class Dtype { kFloat16, kBfloat16 };

// Which keys a group of queries reads: one range, the ranges of a CSR list, or all keys view by view with epipolar
// lines.
enum class Keys { kRange, kSegments, kViews };

// What a kernel computes, beyond softmax(q k / sqrt(D)) v.
enum class Mode {
  kDense,
  kBiased,          // a bias per key
  kRows,            // a bias per key that the leading rows of every period alone see
  kEpipolar,        // a bias per key, and a penalty off the epipolar line
  kSegments,        // key segments by query group, a bias per key
  kSegmentsBiased,  // the same, and a bias per head and segment
  kPartial,         // one part of the keys: a float32 result with its log-sum-exp, to be merged
  kPartialBiased,   // one part of the keys, a bias per key
};

// How a kernel is cut, as far as its launch depends on it: queries and keys of a block, and whether K and V go by
// descriptor.
struct Tile {
  int64_t queries;
  int64_t keys;
  bool descriptors;
};

std::string_view name_of(Dtype dtype);  // in the pack
std::string_view name_of(Mode mode);    // in the pack, after attention_

// Of a tensor's type, as PyTorch calls it. Throws Error for a type that no kernel computes in.
Dtype dtype_named(std::string_view name);

bool has_bias(Mode mode);
Keys keys_of(Mode mode);

// The mode in which a mode's keys can be split.
std::optional<Mode> of_parts(Mode mode);

}  // namespace page4d::plugin
