// The stages over buffers that are allocated once: a window is uploads, calls with their gathered rows, downloads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/buffer_plan.h"
#include "runtime/engine.h"

namespace page4d {

class Chain {
 public:
  // Loads and allocates. Throws Error. The plan and its manifest must outlive it.
  Chain(const BufferPlan& plan, EngineLoader& loader);
  // Waits for the device's own stream: engines may not go while they compute, which they do where one of them failed at
  // load.
  ~Chain();

  // Address of a view of the plan.
  void* at(const BufferView& view) const;
  // Of a value from outside that does not change, before `prepare`.
  void set_constant(const BufferView& view, const void* data);

  // Runs once on what lies there, and makes one launch of all calls where device and engines allow.
  // Throws Error where a stage fails. Gives the reason why there is no graph, empty where there is one or none was
  // wanted.
  std::string prepare(bool use_graph);
  bool has_graph() const { return has_graph_; }

  // Puts all calls on a stream. shared: times that the window begins with and the one before ended with, whose images
  // the encoder does not see again; 0, or of a plan with carries.
  Failure run(Stream stream, int64_t shared = 0) noexcept;
  // The stage that failed in the last `run`; null where it was no stage.
  const char* failed_stage() const noexcept { return failed_stage_; }
  // Of each stage of the manifest in the last run, which must be done.
  void seconds(double* target) noexcept;

 private:
  Failure put(Stream stream, int64_t shared) noexcept;
  [[noreturn]] void fail(Failure failure) const;

  struct Copy {
    void* target;
    const void* source;
    size_t rows, width, pitch;
  };
  struct BoundStep {
    const char* stage;
    size_t stage_number;
    std::unique_ptr<BoundCall> call;
    std::vector<Copy> copies;
    int64_t images;  // as Step's
    int done;        // event
  };

  struct BoundCarry {
    int64_t images;
    std::vector<Copy> copies;
  };

  std::vector<Copy> copies_of(const std::vector<Gather>& gathers) const;
  Failure copy(const std::vector<Copy>& copies, Stream stream) noexcept;

  const BufferPlan& plan_;
  Device& device_;
  std::map<std::string, char*> buffers_;
  std::vector<std::unique_ptr<Engine>> engines_;  // before the calls, which they outlive
  std::vector<BoundStep> steps_;
  std::vector<BoundCarry> carries_;
  size_t stages_ = 0;
  int begin_ = 0;
  bool has_graph_ = false;
  const char* failed_stage_ = nullptr;
};

}  // namespace page4d
