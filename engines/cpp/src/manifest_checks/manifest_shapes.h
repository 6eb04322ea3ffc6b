// Which type and shape each tensor of the chain has. Mirrors page4d/manifest_checks/manifest_shapes.py.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "manifest_checks/manifest_kinds.h"

namespace page4d {

// Kept layers by the tensors' names.
using KeptLayers = std::map<std::string, const KeptLayer*>;

// The shapes that tensors may have, by their names.
class Shapes {
 public:
  int64_t streams = 1;  // of the tokens at this point of the chain

  // The model must outlive it.
  Shapes(const Manifest& manifest, const StagesModel& model, const KeptLayers& layers);

  // Throws Error kIncompatible unless a tensor has its type and shape; tokens may have from `streams` to `most_streams`
  // streams.
  void check(const Stage& stage, const TensorSpec& spec, int64_t most_streams);

 private:
  using Shape = std::vector<int64_t>;

  std::vector<Shape> allowed(const Stage& stage, const TensorSpec& spec, int64_t most_streams);
  // With an axis of clips in front if there are several.
  Shape clip(Shape shape) const;
  Shape of_streams(int64_t count, const Shape& shape) const;

  const Layout layout_;
  const StagesModel& model_;
  const DType tokens_;
  const Shape encoded_;
  Shape patches_, memory_;
  std::map<std::string, Shape> shapes_, of_image_;  // of all images; of an image
};

}  // namespace page4d
