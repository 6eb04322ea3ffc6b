// The buffer plan: which tensor lies where while the chain runs, made from the manifest alone. Mirrors
// page4d_engines/buffers.py.
//
// A stage's output lies where the next stage reads it, so nothing is copied between stages. A tensor that a stage both
// reads and writes (tokens, memory) has two places in turn, every other one place.
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

// A view by a name: the engine's own of an input or output, or a variable's.
using NamedView = std::pair<std::string, BufferView>;

// One call of a stage: a view for every input and output, by the engine's names.
struct Call {
  const Stage* stage;  // of the manifest
  std::vector<NamedView> inputs, outputs;
};

// Rows of bytes, side by side in one place, come into columns of another: a stage's tokens into a kept layer, a stream
// at a time; or encoded images into the places that they have in the next window.
struct Gather {
  std::string source;
  int64_t source_offset;  // in bytes
  std::string target;
  int64_t target_offset;
  // bytes of a row; from a row of the target to the next. The source's rows follow one another
  int64_t rows, width, pitch;
};

// After a call: a stage's tokens go where they are kept.
struct Step {
  size_t call;
  int64_t images;  // of the encoder: the images up to its last one; of another stage 0
  std::vector<Gather> gathers;
};

// What the encoder made of the images that two windows share comes to its new places.
struct Carry {
  int64_t images;  // that are shared
  std::vector<Gather> gathers;
};

struct BufferPlan {
  std::map<std::string, int64_t> sizes;  // bytes
  std::vector<Call> calls;
  std::vector<Step> steps;         // a call each, in order
  std::vector<NamedView> outputs;  // mask, layers.<i>, memory, points, confidence, camera: as far as there are
  std::vector<Carry> carries;      // by shared times, from 1; empty: the plan keeps nothing of the window before
  // where a value given from outside goes before the first call: images, special, mask_ext ..
  std::vector<NamedView> starts;

  int64_t total() const;
  // Null where there is none.
  const BufferView* start(const std::string& name) const;
  const BufferView* output(const std::string& name) const;

  // The manifest must outlive the plan, and be one that check_manifest let pass.
  // sliding: windows overlap: what the encoder made of the images that they share is kept, in a buffer of its own.
  // Throws Error kIncompatible where something would lie outside of its buffer all the same.
  static BufferPlan make(const Manifest& manifest, bool sliding = false);

 private:
  void check() const;
};

}  // namespace page4d
