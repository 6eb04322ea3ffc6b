#include "plan/ops.h"

namespace page4d::plugin {
namespace {

constexpr const char* kOpNames[] = {"BiasedAttention", "SegmentAttention"};
constexpr const char* kTensorNames[] = {
    "q", "k", "v", "key_bias", "fundamental", "centres", "seg_ptr", "seg", "segment_bias", "out", "workspace"};
static_assert(View<const char*>(kTensorNames).size() == kTensors);
constexpr Tensor kBiasedInputs[] = {Tensor::kQ,       Tensor::kK,           Tensor::kV,
                                    Tensor::kKeyBias, Tensor::kFundamental, Tensor::kCentres};
constexpr Tensor kSegmentInputs[] = {Tensor::kQ,      Tensor::kK,   Tensor::kV,          Tensor::kKeyBias,
                                     Tensor::kSegPtr, Tensor::kSeg, Tensor::kSegmentBias};

}  // namespace

const char* name_of(Op op) { return kOpNames[static_cast<size_t>(op)]; }

const char* name_of(Tensor tensor) { return kTensorNames[static_cast<size_t>(tensor)]; }

std::optional<Op> op_named(std::string_view name) {
  for (Op op : {Op::kBiasedAttention, Op::kSegmentAttention})
    if (name == name_of(op)) return op;
  return std::nullopt;
}

View<Tensor> inputs_of(Op op) {
  return op == Op::kBiasedAttention ? View<Tensor>(kBiasedInputs) : View<Tensor>(kSegmentInputs);
}

}  // namespace page4d::plugin
