#include "runtime/chain.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

constexpr double kMib = 1 << 20;

std::string mib(size_t size) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.1f MiB", static_cast<double>(size) / kMib);
  return digits;
}

}  // namespace

Chain::Chain(const BufferPlan& plan, EngineLoader& loader) : plan_(plan), device_(loader.device()) {
  std::map<const Stage*, size_t> engine_of;
  size_t scratch = 0;
  for (const Call& call : plan.calls) {
    if (!engine_of.emplace(call.stage, engines_.size()).second) continue;
    engines_.push_back(loader.load(*call.stage));
    scratch = std::max(scratch, engines_.back()->scratch());
  }
  stages_ = engines_.size();
  const size_t needed = static_cast<size_t>(plan.total()) + scratch, free = device_.free_memory();
  if (needed > free) {
    throw Error(Code::kOutOfMemory, "buffers and scratch do not fit the GPU")
        .got(mib(needed) + " needed beside the weights")
        .allowed(mib(free) + " free")
        .hint("page4d-export with a smaller --T, --V, --height or --width");
  }
  for (const auto& [name, size] : plan.sizes)
    buffers_[name] = static_cast<char*>(device_.allocate(static_cast<size_t>(size)));
  void* block = scratch == 0 ? nullptr : device_.allocate(scratch);
  begin_ = device_.make_event();
  const auto addresses = [&](const std::vector<NamedView>& views) {
    std::vector<Address> bound;
    for (const auto& [name, view] : views) bound.emplace_back(name, at(view));
    return bound;
  };
  for (const Step& step : plan.steps) {
    const Call& call = plan.calls[step.call];
    const size_t number = engine_of.at(call.stage);
    steps_.push_back({call.stage->name.c_str(), number,
                      engines_[number]->bind(addresses(call.inputs), addresses(call.outputs), block),
                      copies_of(step.gathers), step.images, device_.make_event()});
  }
  for (const Carry& carry : plan.carries) carries_.push_back({carry.images, copies_of(carry.gathers)});
}

Chain::~Chain() {
  const Entered entered(device_);
  device_.synchronize(device_.own_stream());
}

std::vector<Chain::Copy> Chain::copies_of(const std::vector<Gather>& gathers) const {
  std::vector<Copy> copies;
  for (const Gather& gather : gathers) {
    copies.push_back({buffers_.at(gather.target) + gather.target_offset,
                      buffers_.at(gather.source) + gather.source_offset, static_cast<size_t>(gather.rows),
                      static_cast<size_t>(gather.width), static_cast<size_t>(gather.pitch)});
  }
  return copies;
}

void* Chain::at(const BufferView& view) const { return buffers_.at(view.buffer) + view.offset; }

void Chain::set_constant(const BufferView& view, const void* data) {
  const Stream stream = device_.own_stream();
  const auto size = static_cast<size_t>(view.bytes());
  void* staging = device_.staging(size);
  std::memcpy(staging, data, size);
  if (Failure failure = device_.upload(at(view), staging, size, stream)) fail(failure);
  if (Failure failure = device_.synchronize(stream)) fail(failure);
}

void Chain::set_step_after_encoder(std::function<Failure(Stream)> step) {
  after_encoder_ = std::move(step);
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (plan_.calls[plan_.steps[i].call].stage->kind == "encoder") last_of_encoder_ = &steps_[i];
  }
}

std::string Chain::prepare(bool use_graph) {
  const Stream stream = device_.own_stream();
  if (Failure failure = put(stream, 0)) fail(failure);
  if (Failure failure = device_.synchronize(stream)) fail(failure);
  if (!use_graph || !device_.can_capture()) return {};
  for (const auto& engine : engines_) {
    if (std::string reason = engine->uncapturable(stream); !reason.empty()) return reason;
  }
  if (Failure failure = device_.begin_capture()) return failure;
  const Failure put_failure = put(stream, 0);
  const Failure end_failure = device_.end_capture();
  if (put_failure != nullptr || end_failure != nullptr) return put_failure != nullptr ? put_failure : end_failure;
  has_graph_ = true;
  return {};
}

Failure Chain::run(Stream stream, int64_t shared) noexcept {
  failed_stage_ = nullptr;
  return has_graph_ && shared == 0 ? device_.launch(stream) : put(stream, shared);
}

Failure Chain::put(Stream stream, int64_t shared) noexcept {
  failed_stage_ = nullptr;
  if (Failure failure = device_.record(begin_, stream)) return failure;
  int64_t carried = 0;
  if (shared > 0) {
    const BoundCarry& carry = carries_[static_cast<size_t>(shared - 1)];
    if (Failure failure = copy(carry.copies, stream)) return failure;
    carried = carry.images;
  }
  for (const BoundStep& step : steps_) {
    // a call with a new image computes its other images again
    if (step.images == 0 || step.images > carried) {
      if (Failure failure = step.call->launch(stream)) {
        failed_stage_ = step.stage;
        return failure;
      }
    }
    if (&step == last_of_encoder_) {
      if (Failure failure = after_encoder_(stream)) return failure;
    }
    if (Failure failure = device_.record(step.done, stream)) return failure;
    if (Failure failure = copy(step.copies, stream)) return failure;
  }
  return nullptr;
}

Failure Chain::copy(const std::vector<Copy>& copies, Stream stream) noexcept {
  for (const Copy& copy : copies) {
    if (Failure failure =
            device_.copy_rows(copy.target, copy.pitch, copy.source, copy.width, copy.width, copy.rows, stream))
      return failure;
  }
  return nullptr;
}

void Chain::seconds(double* target) noexcept {
  std::fill(target, target + stages_, 0.0);
  int before = begin_;
  for (const BoundStep& step : steps_) {
    target[step.stage_number] += device_.seconds(before, step.done);
    before = step.done;
  }
}

void Chain::fail(Failure failure) const {
  if (failed_stage_ != nullptr) throw Error(Code::kIncompatible, text(failed_stage_, " failed")).got(failure);
  throw Error(Code::kFailure, "the device refused a call").got(failure);
}

}  // namespace page4d
