// The names of the two attention ops and their inputs, as in a graph's nodes. Mirrors page4d/ops.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "view.h"

namespace page4d::plugin {

inline constexpr char kNamespace[] = "page4d";
inline constexpr char kVersion[] = "1";

enum class Op { kBiasedAttention, kSegmentAttention };

// Every tensor of either op, and the workspace for intermediate results of a call's kernels.
enum class Tensor { kQ, kK, kV, kKeyBias, kFundamental, kCentres, kSegPtr, kSeg, kSegmentBias, kOut, kWorkspace };
inline constexpr size_t kTensors = 11;

// A key bias for some queries only: the first `leading` of every `period` rows, multiplied by `gain`.
struct BiasedRows {
  int64_t period;
  int64_t leading;
  double gain;

  bool operator==(const BiasedRows& other) const {
    return period == other.period && leading == other.leading && gain == other.gain;
  }
};

const char* name_of(Op op);
const char* name_of(Tensor tensor);
std::optional<Op> op_named(std::string_view name);

// BiasedAttention has the first 3, 4 or 6 of its inputs, SegmentAttention the first 6 or all.
View<Tensor> inputs_of(Op op);

}  // namespace page4d::plugin
