// The buffer plan: where each tensor is in memory while the chain runs, from the manifest alone. Mirrors
// page4d_engines/runtime/buffer_plan.py.
//
// A stage writes its output where the next stage reads it, so nothing is copied between stages. A tensor that a stage
// both reads and writes (tokens, memory) alternates between two places; every other tensor has one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "manifest/manifest.h"

namespace page4d {

// A tensor inside a buffer.
struct BufferView {
  std::string buffer;
  int64_t offset = 0;  // in bytes
  std::vector<int64_t> shape;
  DType dtype = DType::kFloat32;

  int64_t bytes() const;
};

// A view with a name: the engine's name of an input or output, or the name of a variable.
using NamedView = std::pair<std::string, BufferView>;

// One call of a stage: a view for every input and output, by the engine's names.
struct Call {
  const Stage* stage;  // of the manifest
  std::vector<NamedView> inputs, outputs;
};

// A copy of contiguous rows of bytes into columns of another place: a stage's tokens into a kept layer, stream by
// stream; or encoded images into their places in the next window.
struct Gather {
  std::string source;
  int64_t source_offset;  // in bytes
  std::string target;
  int64_t target_offset;
  // width: bytes of a row; pitch: bytes from one row of the target to the next. Rows of the source have no padding.
  int64_t rows, width, pitch;
};

// After a call: a stage's tokens are copied to where they are kept.
struct Step {
  size_t call;
  int64_t images;  // of the encoder: how many images are encoded after this call; of another stage 0
  std::vector<Gather> gathers;
};

// The tokens of encoded images that two windows share move to their new places.
struct Carry {
  int64_t images;  // shared
  std::vector<Gather> gathers;
};

struct BufferPlan {
  std::map<std::string, int64_t> sizes;  // bytes
  std::vector<Call> calls;
  std::vector<Step> steps;         // one call each, in order
  std::vector<NamedView> outputs;  // mask, layers.<i>, memory and predictions, as far as they exist
  std::vector<Carry> carries;      // by shared timesteps, from 1; empty: the plan keeps nothing of the window before
  // Where the chain's inputs go before the first call: images, special, cameras, mask_ext ...
  std::vector<NamedView> starts;

  int64_t total() const;
  // Null if there is none.
  const BufferView* start(const std::string& name) const;
  const BufferView* output(const std::string& name) const;

  // The manifest must outlive the plan, and have passed check_manifest.
  // sliding: windows overlap; the tokens of encoded images that they share are kept in a buffer of their own.
  // Throws Error kIncompatible if a tensor would lie outside of its buffer all the same.
  static BufferPlan make(const Manifest& manifest, bool sliding = false);

 private:
  void check() const;
};

}  // namespace page4d
