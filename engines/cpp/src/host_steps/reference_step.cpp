#include "host_steps/reference_step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "clip/reference_view.h"

namespace page4d {
namespace {

constexpr int64_t kFewestViews = 3;

// What the encoder's first call writes.
const BufferView& written(const BufferPlan& plan, const char* name) {
  const auto call = std::find_if(plan.calls.begin(), plan.calls.end(),
                                 [](const Call& entry) { return entry.stage->kind == "encoder"; });
  return std::find_if(call->outputs.begin(), call->outputs.end(), [&](const NamedView& v) { return v.first == name; })
      ->second;
}

}  // namespace

bool ReferenceStep::is_needed(const Manifest& manifest) {
  return manifest.makes("select") && manifest.layout.V >= kFewestViews;
}

ReferenceStep::ReferenceStep(const Manifest& manifest, const BufferPlan& plan, const Chain& chain, Device& device,
                             Bytes special)
    : device_(device),
      clips_(manifest.layout.B),
      views_(manifest.layout.V),
      channels_(manifest.width),
      row_(static_cast<size_t>(channels_) * bytes_of(manifest.dtype())),
      token_pitch_(row_ * static_cast<size_t>(manifest.layout.N())),
      special_pitch_(row_ * static_cast<size_t>(manifest.layout.special())),
      special_(std::move(special)),
      select_(chain.at(written(plan, "select"))),
      tokens_(chain.at(written(plan, "tokens"))) {
  const auto images = static_cast<size_t>(clips_ * views_);
  rows_ = device.allocate(images * row_);
  host_rows_ = static_cast<unsigned char*>(device.staging(images * row_));
  host_select_ = static_cast<float*>(device.staging(images * static_cast<size_t>(channels_) * sizeof(float)));
  scratch_.resize(static_cast<size_t>(channels_ + 3 * views_));
}

Failure ReferenceStep::put(Stream stream) noexcept {
  const auto images = static_cast<size_t>(clips_ * views_);
  Failure failure = device_.copy_rows(rows_, row_, tokens_, token_pitch_, row_, images, stream);
  if (failure == nullptr) failure = device_.download(host_rows_, rows_, images * row_, stream);
  if (failure == nullptr)
    failure = device_.download(host_select_, select_, images * static_cast<size_t>(channels_) * sizeof(float), stream);
  if (failure == nullptr)
    failure = device_.call_host([](void* step) { static_cast<ReferenceStep*>(step)->choose(); }, this, stream);
  if (failure == nullptr) failure = device_.upload(rows_, host_rows_, images * row_, stream);
  if (failure == nullptr) failure = device_.copy_rows(tokens_, token_pitch_, rows_, row_, row_, images, stream);
  return failure;
}

void ReferenceStep::choose() noexcept {
  for (int64_t clip = 0; clip < clips_; ++clip) {
    const int64_t first = clip * views_;
    const int64_t chosen = balanced_view(host_select_ + first * channels_, views_, channels_, scratch_.data());
    if (chosen == 0) continue;
    const auto image = static_cast<size_t>(first);
    const unsigned char* special = special_.data() + image * special_pitch_;
    std::memcpy(host_rows_ + (image + static_cast<size_t>(chosen)) * row_, special, row_);
    std::memcpy(host_rows_ + image * row_, special + special_pitch_, row_);
  }
}

}  // namespace page4d
