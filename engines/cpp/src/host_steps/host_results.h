// The results that the host computes from what the engines give: cameras and intrinsics; points and depth in another
// scale. Mirrors
// page4d_engines/runtime/host_results.py.
#pragma once

#include <optional>
#include <vector>

#include "clip/known_cameras.h"
#include "clip/poses.h"
#include "page4d/pipeline.h"
#include "runtime/buffer_plan.h"
#include "runtime/chain.h"
#include "runtime/device.h"

namespace page4d {

class HostResults {
 public:
  // known: the images' cameras, for engines whose results depend on them. Plan, chain and device must outlive it.
  // Throws Error.
  HostResults(const Manifest& manifest, const BufferPlan& plan, const Chain& chain, Device& device,
              std::optional<KnownCameras> known);

  // Whether the host computes a result, or computes with it: such a result is written to the host's memory.
  bool computes(Output Outputs::* member) const noexcept;
  // Whether there is memory for such a result.
  bool is_asked(const Outputs& outputs) const noexcept;
  // Completes the results, in the order of the stream, after the engines' own were copied to `outputs`. Those of the
  // call before must be done. present: [images], copied: 0 for an absent image, whose camera and intrinsics are NaN.
  Failure put(const Outputs& outputs, const uint8_t* present, Stream stream) noexcept;

 private:
  void compute() noexcept;
  void compute_all() noexcept;
  void scale_points() noexcept;
  void take_known(int64_t clip, double* estimated) noexcept;
  void scale_by_focal_length() noexcept;
  void leave_out_absent() noexcept;

  Device& device_;
  const Layout layout_;
  const PoseDirection direction_;
  const bool takes_focal_lengths_;
  std::optional<KnownCameras> known_;
  const BufferView* camera_view_;  // null: no camera head
  const BufferView* metric_view_;  // null: lengths are as the engines give them
  void *device_numbers_ = nullptr, *device_metric_ = nullptr;
  float *numbers_ = nullptr, *metric_ = nullptr;  // [images,size], [B], on the host
  int64_t size_ = 0;
  std::vector<double> estimated_;  // [V,4,4]; empty without known cameras
  std::vector<uint8_t> present_;   // [images]
  // of the caller; null: not asked for
  double *camera_ = nullptr, *intrinsics_ = nullptr;
  float *points_ = nullptr, *depth_ = nullptr;
};

}  // namespace page4d
