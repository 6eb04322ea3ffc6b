#include "host_steps/reference_step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "clip/reference_view.h"

namespace page4d {
namespace {

// Bytes of a part of the first axis.
size_t pitch_of(const BufferView& view) { return static_cast<size_t>(view.bytes() / view.shape.front()); }

}  // namespace

ReferenceStep::ReferenceStep(const ReferenceChoice& choice, const BufferView* present, const Chain& chain,
                             Device& device, Bytes special)
    : device_(device),
      clips_(choice.clips),
      views_(choice.select.shape.front() / choice.clips),
      channels_(choice.select.shape.back()),
      row_(static_cast<size_t>(channels_) * bytes_of(choice.tokens.dtype)),
      token_pitch_(pitch_of(choice.tokens)),
      special_pitch_(pitch_of(choice.special)),
      special_(std::move(special)),
      select_(chain.at(choice.select)),
      tokens_(chain.at(choice.tokens)),
      present_(present == nullptr ? nullptr : chain.at(*present)) {
  const auto images = static_cast<size_t>(clips_ * views_);
  rows_ = device.allocate(images * row_);
  host_rows_ = static_cast<unsigned char*>(device.staging(images * row_));
  host_select_ = static_cast<float*>(device.staging(images * static_cast<size_t>(channels_) * sizeof(float)));
  host_present_ = static_cast<unsigned char*>(device.staging(images));
  std::fill_n(host_present_, images, uint8_t{1});
  scratch_.resize(static_cast<size_t>(channels_ + 3 * views_));
  views_of_.resize(static_cast<size_t>(views_));
}

Failure ReferenceStep::put(Stream stream) noexcept {
  const auto images = static_cast<size_t>(clips_ * views_);
  Failure failure = device_.copy_rows(rows_, row_, tokens_, token_pitch_, row_, images, stream);
  if (failure == nullptr) failure = device_.download(host_rows_, rows_, images * row_, stream);
  if (failure == nullptr)
    failure = device_.download(host_select_, select_, images * static_cast<size_t>(channels_) * sizeof(float), stream);
  if (failure == nullptr && present_ != nullptr) failure = device_.download(host_present_, present_, images, stream);
  if (failure == nullptr)
    failure = device_.call_host([](void* step) { static_cast<ReferenceStep*>(step)->choose(); }, this, stream);
  if (failure == nullptr) failure = device_.upload(rows_, host_rows_, images * row_, stream);
  if (failure == nullptr) failure = device_.copy_rows(tokens_, token_pitch_, rows_, row_, row_, images, stream);
  return failure;
}

void ReferenceStep::choose() noexcept {
  for (int64_t clip = 0; clip < clips_; ++clip) choose_of(clip);
}

void ReferenceStep::choose_of(int64_t clip) noexcept {
  const int64_t image = clip * views_;
  float* select = host_select_ + image * channels_;
  int64_t count = 0;  // present views, whose tokens come to the front
  for (int64_t view = 0; view < views_; ++view) {
    if (host_present_[image + view] == 0) continue;
    if (count < view) std::copy_n(select + view * channels_, channels_, select + count * channels_);
    views_of_[static_cast<size_t>(count++)] = view;
  }
  const int64_t place = balanced_view(select, count, channels_, scratch_.data());
  const int64_t chosen = views_of_[static_cast<size_t>(place)];
  if (chosen == 0) return;
  unsigned char* row = host_rows_ + static_cast<size_t>(image) * row_;
  const unsigned char* special = special_.data() + static_cast<size_t>(image) * special_pitch_;
  std::memcpy(row + static_cast<size_t>(chosen) * row_, special, row_);
  std::memcpy(row, special + special_pitch_, row_);
}

}  // namespace page4d
