#include "host_steps/absence.h"

#include <algorithm>
#include <cstring>

namespace page4d {
namespace {

constexpr uint32_t kNanBits = 0x7fc00000;  // of float32
constexpr size_t kWord = 4;

}  // namespace

Absence::Absence(const Manifest& manifest, const BufferPlan& plan, Chain& chain, Device& device, Bytes special,
                 const std::optional<KnownCameras>& known)
    : layout_(manifest.layout),
      chain_(chain),
      device_(device),
      present_input_(plan.start("present")),
      constant_(std::move(special)),
      present_(static_cast<size_t>(layout_.images()), 1),
      on_device_(present_) {
  if (!is_possible()) return;
  flags_ = staged(present_input_);
  chain.set_constant(*present_input_, present_.data());
  // where a reference view is chosen, its special tokens are the choice's
  if (!constant_.empty() && !plan.reference && layout_.frames() > 1) {
    special_ = staged(plan.start("special"));
    std::memcpy(special_.staging, constant_.data(), special_.bytes);
  }
  if (known && plan.start("cameras") != nullptr) {
    known_ = known;
    cameras_ = staged(plan.start("cameras"));
    encoded_.resize(cameras_.bytes / sizeof(float));
  }
}

Absence::Staged Absence::staged(const BufferView* view) {
  const auto bytes = static_cast<size_t>(view->bytes());
  return {chain_.at(*view), static_cast<unsigned char*>(device_.staging(bytes)), bytes};
}

void Absence::set(const uint8_t* present) noexcept {
  for (size_t i = 0; i < present_.size(); ++i) present_[i] = present == nullptr || present[i] != 0 ? 1 : 0;
}

int64_t Absence::first_present() const noexcept {
  return std::find(present_.begin(), present_.end(), uint8_t{1}) - present_.begin();
}

Failure Absence::put(Stream stream) noexcept {
  if (!is_possible() || (is_on_device_ && present_ == on_device_)) return nullptr;
  is_on_device_ = false;
  std::memcpy(flags_.staging, present_.data(), flags_.bytes);
  for (int64_t clip = 0; special_.target != nullptr && clip < layout_.B; ++clip) mark_first(clip);
  if (cameras_.target != nullptr) encode_cameras();
  for (const Staged* input : {&flags_, &special_, &cameras_}) {
    if (input->target == nullptr) continue;
    if (Failure failure = device_.upload(input->target, input->staging, input->bytes, stream)) return failure;
  }
  std::copy(present_.begin(), present_.end(), on_device_.begin());
  is_on_device_ = true;
  return nullptr;
}

// The constant's rows of image 0 are the first image's, those of image 1 any other's.
void Absence::mark_first(int64_t clip) noexcept {
  const size_t row = constant_.size() / present_.size(), clip_bytes = row * static_cast<size_t>(layout_.frames());
  const auto start = static_cast<size_t>(clip) * clip_bytes;
  unsigned char* target = special_.staging + start;
  const unsigned char* constant = constant_.data() + start;
  std::memcpy(target, constant, clip_bytes);
  const auto begin = present_.begin() + clip * layout_.frames();
  const auto first = static_cast<size_t>(std::find(begin, begin + layout_.frames(), uint8_t{1}) - begin);
  if (first == 0) return;
  std::memcpy(target + first * row, constant, row);
  std::memcpy(target, constant + row, row);
}

void Absence::encode_cameras() noexcept {
  known_->encode(layout_.H, layout_.W, present_.data(), encoded_.data());
  auto* numbers = reinterpret_cast<float*>(cameras_.staging);
  for (const double number : encoded_) *numbers++ = static_cast<float>(number);
}

Failure Absence::leave_out(const BufferView& view, Stream stream) noexcept {
  const size_t bytes = static_cast<size_t>(view.bytes()) / present_.size();
  auto* target = static_cast<unsigned char*>(chain_.at(view));
  for (size_t i = 0; i < present_.size(); ++i) {
    if (present_[i] != 0) continue;
    if (Failure failure = device_.fill(target + i * bytes, kNanBits, bytes / kWord, stream)) return failure;
  }
  return nullptr;
}

}  // namespace page4d
