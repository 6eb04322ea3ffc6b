// A step of the chain that the host computes: the choice of the reference view, after the encoder. Mirrors `ChooseView`
// of page4d_engines/runtime/schedule.py.
//
// Everything is put on the stream, so that it may be part of a CUDA graph: the encoder's cls tokens and token 0 of
// every image come to the host, which exchanges two rows, and the rows go back.
#pragma once

#include <vector>

#include "manifest/constants.h"
#include "runtime/buffer_plan.h"
#include "runtime/chain.h"
#include "runtime/device.h"

namespace page4d {

class ReferenceStep {
 public:
  // Whether the engines choose a view: the encoder writes `select`, and there are views to choose from.
  static bool is_needed(const Manifest& manifest);

  // special: of every image, in the engines' type. Plan, chain and device must outlive it. Throws Error.
  ReferenceStep(const Manifest& manifest, const BufferPlan& plan, const Chain& chain, Device& device, Bytes special);

  // After the encoder's last call.
  Failure put(Stream stream) noexcept;

 private:
  void choose() noexcept;

  Device& device_;
  const int64_t clips_, views_, channels_;
  const size_t row_, token_pitch_, special_pitch_;  // bytes: of a token, of an image's tokens, of its special tokens
  const Bytes special_;
  void *select_, *tokens_, *rows_;  // on the device: [images,C]; token 0 of image 0; [images,C]
  float* host_select_;
  unsigned char* host_rows_;
  std::vector<double> scratch_;
};

}  // namespace page4d
