// A step of the chain that the host computes: the choice of the reference view, after the encoder. Mirrors `ChooseView`
// of page4d_engines/runtime/schedule.py.
//
// Everything is put on the stream, so that it may be part of a CUDA graph: the encoder's cls tokens and token 0 of
// every image come to the host, which exchanges two rows, and the rows go back. The choice is among the present images.
#pragma once

#include <vector>

#include "manifest/constants.h"
#include "runtime/buffer_plan.h"
#include "runtime/chain.h"
#include "runtime/device.h"

namespace page4d {

class ReferenceStep {
 public:
  // special: the constant, in the engines' type. present: the engines' input, null if they have none. The device must
  // outlive it. Throws Error.
  ReferenceStep(const ReferenceChoice& choice, const BufferView* present, const Chain& chain, Device& device,
                Bytes special);

  // After the encoder's last call.
  Failure put(Stream stream) noexcept;

 private:
  void choose() noexcept;
  void choose_of(int64_t clip) noexcept;

  Device& device_;
  const int64_t clips_, views_, channels_;
  const size_t row_, token_pitch_, special_pitch_;  // bytes: of a token, of an image's tokens, of its special tokens
  const Bytes special_;
  void *select_, *tokens_, *rows_;  // on the device: [images,C]; token 0 of image 0; [images,C]
  void* present_ = nullptr;         // on the device: [images]; null: every image is present
  float* host_select_;
  unsigned char* host_present_;
  unsigned char* host_rows_;
  std::vector<double> scratch_;
  std::vector<int64_t> views_of_;  // [views]: the present ones of a clip
};

}  // namespace page4d
