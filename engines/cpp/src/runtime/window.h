// Runs windows on any device: images in, calls of the stages, results out. Reads no files.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clip/fit.h"
#include "clip/known_cameras.h"
#include "host_steps/absence.h"
#include "host_steps/host_results.h"
#include "host_steps/reference_step.h"
#include "manifest/constants.h"
#include "page4d/pipeline.h"
#include "runtime/chain.h"
#include "runtime/info.h"

namespace page4d {

class WindowRunner {
 public:
  // Allocates everything, runs once on zeros, captures a graph. constants: those of Manifest::constants. Throws Error.
  WindowRunner(const Manifest& manifest, EngineLoader& loader,
               const std::map<std::string, std::vector<float>>& constants, const Options& options);

  // Waits until the last window is done.
  ~WindowRunner();

  const EngineInfo& info() const noexcept { return info_; }
  const std::string& no_graph() const noexcept { return no_graph_; }
  bool slides() const noexcept { return !plan_.carries.empty(); }
  bool has_graph() const noexcept { return chain_.has_graph(); }

  // As Pipeline::run and Pipeline::times.
  Status run(const Frames& frames, const Outputs& outputs, void* stream) noexcept;
  const StageTime* times() noexcept;

 private:
  struct Input {
    const BufferView* view = nullptr;  // null: the engines do not read it
    unsigned char* staging = nullptr;
  };
  struct Target {
    const BufferView* view;    // null: camera or intrinsics, which are computed on the host
    Output Outputs::* member;  // null: a layer
    int layer;
    size_t bytes;
    std::string name;
    bool is_of_images;  // float32 of each image, which are NaN where it is absent
  };

  Input input(const char* name, Device& device);
  std::vector<Camera> fitted_cameras(const Options& options) const;
  void set_numbers(const BufferView& view, const std::vector<double>& numbers);
  void set_lines(const Options& options);
  std::optional<KnownCameras> known_cameras(const Options& options);

  Status refuse(Code code, const char* format, ...) noexcept __attribute__((format(printf, 3, 4)));
  Status check(const Frames& frames, const Outputs& outputs) noexcept;
  Status check_present(const uint8_t* present) noexcept;
  Status check_shared(const Frames& frames) noexcept;
  Status check_images(const char* what, const Image* images, const uint8_t* present, bool mono) noexcept;
  Status broken(Failure failure) noexcept;
  Status run_alone(const Frames& frames, const Outputs& outputs, void* stream) noexcept;
  Failure put(const Frames& frames, const Outputs& outputs, Stream stream) noexcept;
  Failure put_images(const Frames& frames, Stream stream) noexcept;
  int64_t first_image(const Frames& frames) const noexcept;
  Failure put_maps(const Image* images, const Input& input, Stream stream) noexcept;
  Failure fetch(const Target& target, const Output& output, Stream stream) noexcept;
  const Output& of(const Outputs& outputs, const Target& target) const noexcept;

  const Manifest& manifest_;
  BufferPlan plan_;
  EngineInfo info_;
  Device& device_;
  bool on_host_;
  // null: the first view is the reference, or there is none. Before the chain, whose last calls may read it
  std::unique_ptr<ReferenceStep> reference_;
  Fitter fitter_;  // before the chain: images that do not fit are refused before gigabytes are loaded
  Chain chain_;
  Input images_, masks_, keypoints_, memory_;
  Bytes learned_;  // the initial memory
  std::unique_ptr<Absence> absence_;
  std::unique_ptr<HostResults> host_results_;
  std::vector<Target> targets_;
  int layers_ = 0;  // kept layers among the outputs
  std::vector<double> seconds_;
  std::vector<StageTime> times_;
  int consumed_ = 0, done_ = 0;                  // events: the staging memory was read; the window is done
  bool is_whole_ = false;                        // whether the tokens of the last window's encoded images are complete
  std::atomic_flag running_ = ATOMIC_FLAG_INIT;  // whether a thread is in `run`
  std::string no_graph_;
  char message_[512] = "";
};

}  // namespace page4d
