#include "kernels/modes.h"

#include <string>

#include "error.h"

namespace page4d::plugin {

std::string_view name_of(Dtype dtype) { return dtype == Dtype::kFloat16 ? "fp16" : "bf16"; }

std::string_view name_of(Mode mode) {
  static constexpr std::string_view kNames[] = {"dense",    "biased",          "rows",    "epipolar",
                                                "segments", "segments_biased", "partial", "partial_biased"};
  return kNames[static_cast<size_t>(mode)];
}

Dtype dtype_named(std::string_view name) {
  if (name == "float16") return Dtype::kFloat16;
  if (name == "bfloat16") return Dtype::kBfloat16;
  throw Error("the attention kernels compute in 16 bits").got(std::string(name)).allowed("float16, bfloat16");
}

bool has_bias(Mode mode) { return mode != Mode::kDense && mode != Mode::kPartial; }

Keys keys_of(Mode mode) {
  if (mode == Mode::kEpipolar) return Keys::kViews;
  return mode == Mode::kSegments || mode == Mode::kSegmentsBiased ? Keys::kSegments : Keys::kRange;
}

std::optional<Mode> of_parts(Mode mode) {
  if (mode == Mode::kDense) return Mode::kPartial;
  if (mode == Mode::kBiased) return Mode::kPartialBiased;
  return std::nullopt;
}

}  // namespace page4d::plugin
