// Which images of a window are absent, and what follows from it for the engines' inputs: `present`, the special tokens
// of the first present image, the cameras of the present views. As `Pipeline._checked` of page4d_engines/pipeline.py.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "clip/known_cameras.h"
#include "manifest/constants.h"
#include "page4d/pipeline.h"
#include "runtime/buffer_plan.h"
#include "runtime/chain.h"
#include "runtime/device.h"

namespace page4d {

class Absence {
 public:
  // special: the constant, in the engines' type; empty if a stage computes the special tokens. known: the images'
  // cameras, for engines that read them. Plan, chain and device must outlive it. To the engines every image is present
  // from here on. Throws Error.
  Absence(const Manifest& manifest, const BufferPlan& plan, Chain& chain, Device& device, Bytes special,
          const std::optional<KnownCameras>& known);

  // Whether the engines take `present`.
  bool is_possible() const noexcept { return present_input_ != nullptr; }
  // Of a window, null: every image is present. For engines that do not take it every value must be 1.
  void set(const uint8_t* present) noexcept;
  // [images], 1 or 0: of the window that was set last.
  const uint8_t* present() const noexcept { return present_.data(); }
  bool is_present(int64_t image) const noexcept { return present_[static_cast<size_t>(image)] != 0; }
  // Of all clips.
  int64_t first_present() const noexcept;

  // The engines' inputs, if they changed. What was put on a stream before must have left the staging memory.
  Failure put(Stream stream) noexcept;
  // Makes the absent images' part of a result on the device NaN. view: float32, of all images.
  Failure leave_out(const BufferView& view, Stream stream) noexcept;

 private:
  struct Staged {
    void* target = nullptr;  // on the device; null: the engines have no such input, or it does not depend on absence
    unsigned char* staging = nullptr;
    size_t bytes = 0;
  };

  void mark_first(int64_t clip) noexcept;
  void encode_cameras() noexcept;
  Staged staged(const BufferView* view);

  const Layout layout_;
  const Chain& chain_;
  Device& device_;
  const BufferView* present_input_;
  Staged flags_, special_, cameras_;
  const Bytes constant_;  // special tokens of clips whose first image is present
  std::optional<KnownCameras> known_;
  std::vector<double> encoded_;               // [V,9]; empty without known cameras
  std::vector<uint8_t> present_, on_device_;  // of the window; of the engines' inputs
  bool is_on_device_ = true;                  // whether the inputs are those of on_device_
};

}  // namespace page4d
