// What one run did, as summary.json has it and report.html shows it. Seconds are seconds on the clock, sizes are bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "page4d/layout.h"
#include "text.h"

namespace offline {

inline constexpr char kSummary[] = "summary.json";

// By name, in order.
template <class Value>
using Named = std::vector<std::pair<std::string, Value>>;

// An estimated camera. A length is in the window's own unit: the network knows no metres.
struct CameraSummary {
  double position[3];  // in the world; NaN where there is none
  double focal[2];     // fx, fy in pixels of the photo
  bool fitted;         // whether the focal lengths were fitted to the points; a guess otherwise
  double residual;     // of the fit, root mean square in pixels of the photo; NaN where there is none
};

// The files of one window, relative to the output folder.
struct PredictionSummary {
  std::string cloud;
  size_t points = 0;  // in the cloud
  std::string cameras;
  std::vector<std::string> depth;  // 16-bit PNG files; 0 stands for no value
  double depth_scale = 1;          // depth of one step of these, in the window's unit
  Named<CameraSummary> rig;        // by view
  std::vector<std::string> warnings;
};

// One window of T times: what came out of it.
struct WindowSummary {
  std::string name, first_frame, last_frame;
  std::string file;  // the .safetensors file, relative to the output folder
  double seconds = 0;
  Named<std::optional<double>>
      mask_mean;  // by camera; none where the mask holds a value that is not a number. Empty without a mask
  std::vector<std::string> overlays;  // PNG files, relative to the output folder
  std::optional<PredictionSummary> predictions;
};

struct Summary {
  std::string page4d;           // version of the runtime
  std::string engines, frames;  // folders, as they were given
  std::string model;            // what the model is, as JSON
  std::string weights;          // where they come from, in words
  page4d::Layout layout;
  std::string precision, backend;
  std::vector<std::string> cameras;  // in the order of the views
  std::vector<WindowSummary> windows;
  Named<double> stage_seconds;  // in the order of the chain: summed over the calls of all windows
  Named<int64_t> stage_flop;    // the same; multiply and add counted as two
  double decode_seconds = 0;    // may run while the stages do
  double write_seconds = 0;
  double wall_seconds = 0;     // the whole run, startup included
  double startup_seconds = 0;  // until the first window could begin
  size_t buffer_bytes = 0;     // allocated once; without the weights
  int64_t peak_rss_bytes = 0;  // the most host memory that the process held
  std::vector<std::string> warnings;

  // Whether the weights were never trained.
  bool seeded() const;
  bool has_mask() const;
  bool has_predictions() const;
  // Over all windows and cameras; none where there is none, or one of them is not a number.
  std::optional<double> mask_mean() const;
  // What seeded weights mean for the results.
  const char* seeded_note() const;
};

Json to_json(const Summary& summary);

}  // namespace offline
