// The calls of all stages over buffers that are allocated once.
#pragma once

#include <functional>
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
  // Waits for the device's own stream: after a failure at load, engines may still compute, and must not be destroyed.
  ~Chain();

  // Address of a view of the plan.
  void* at(const BufferView& view) const;
  // Writes an input that does not change. Before `prepare`.
  void set_constant(const BufferView& view, const void* data);

  // Puts one more step on the stream after the encoder's last call. Before `prepare`. The step allocates nothing.
  void set_step_after_encoder(std::function<Failure(Stream)> step);

  // Runs all calls once, then captures them in a graph if device and engines allow it. Returns the reason why there is
  // no graph; empty if there is one, or `use_graph` is false. Throws Error if a stage fails.
  std::string prepare(bool use_graph);
  bool has_graph() const { return has_graph_; }

  // Puts all calls on a stream. shared: timesteps at the window's start that were at the end of the window before,
  // whose images are not encoded again; 0 unless the plan has carries.
  Failure run(Stream stream, int64_t shared = 0) noexcept;
  // The stage that failed in the last `run`; null if something else failed, or nothing.
  const char* failed_stage() const noexcept { return failed_stage_; }
  // target: for each stage of the manifest its seconds in the last run, which must be done.
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
  std::vector<std::unique_ptr<Engine>> engines_;  // before steps_: engines outlive their calls
  std::vector<BoundStep> steps_;
  std::vector<BoundCarry> carries_;
  std::function<Failure(Stream)> after_encoder_;
  const BoundStep* last_of_encoder_ = nullptr;  // null: no step after it
  size_t stages_ = 0;
  int begin_ = 0;
  bool has_graph_ = false;
  const char* failed_stage_ = nullptr;
};

}  // namespace page4d
