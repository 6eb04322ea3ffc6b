// A run over a clip: every window through the pipeline, its results to disk, at the end the report.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "frame_folder.h"
#include "page4d/pipeline.h"
#include "summary.h"

namespace offline {

struct RunOptions {
  std::filesystem::path engines, frames, out = "out";
  page4d::Backend backend = page4d::Backend::kTensorrt;
  std::optional<int64_t> stride;  // times from a window's start to the next's; none: T, windows without overlap
  page4d::Fit fit = page4d::Fit::kNone;
  Companions companions;
  double min_confidence = 0.1;  // least probability of a point in a point cloud
  std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
};

// A run was told to end.
struct Interrupted {};

// Writes the output folder: whole, or not at all. `stop` is asked before each window.
// Throws page4d::Error, std::filesystem::filesystem_error, Interrupted.
Summary run_clip(const RunOptions& options, bool (*stop)());

}  // namespace offline
