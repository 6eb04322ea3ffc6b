// Which stages there are: what each kind reads and writes, and which options of the model decide their chain. Mirrors
// page4d/manifest_checks/manifest_kinds.py.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "manifest/manifest.h"

namespace page4d {

inline constexpr char kLayer[] = "layers.<i>", kFeatures[] = "features.<i>";

// The model's options that decide its chain of stages.
struct StagesModel {
  int64_t width = 0, streams = 0, depth = 0;
  std::vector<std::string> order;
  std::set<int64_t> global_layers;
  std::string published;  // the name of a published model; any other is none

  // Throws Error kIncompatible: an option is missing, of another type or out of range.
  static StagesModel of(const Manifest& manifest);

  bool is_global(int64_t layer) const { return global_layers.count(layer) != 0; }
  // Whether a stage is a head that processes the images in chunks, [n,...] a call.
  bool takes_chunks(const Stage& stage) const;
  // Whether a stage's attention goes over several images of a clip.
  bool attends_over_images(const Stage& stage, const Layout& layout) const;
};

// Throws Error kIncompatible for a stage of an unknown kind, of another name than its kind and layer say, or with other
// tensors than a stage of its kind.
void check_kind(const Stage& stage);

// A tensor's name without the number of its layer or block.
std::string pattern_of(const std::string& name);

}  // namespace page4d
