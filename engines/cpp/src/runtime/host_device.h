// The host as a Device: every call is done when it returns.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "runtime/device.h"

namespace page4d {

class HostDevice final : public Device {
 public:
  void* allocate(size_t size) override;
  void* staging(size_t size) override { return allocate(size); }
  size_t free_memory() override { return SIZE_MAX; }

  Stream own_stream() override { return nullptr; }
  Failure enter() noexcept override { return nullptr; }
  void leave() noexcept override {}

  Failure upload(void* target, const void* source, size_t size, Stream) noexcept override;
  Failure download(void* target, const void* source, size_t size, Stream stream) noexcept override {
    return upload(target, source, size, stream);
  }
  Failure copy_rows(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                    size_t rows, Stream) noexcept override;
  Failure fill(void* target, uint32_t value, size_t count, Stream) noexcept override;
  Failure call_host(HostFunction function, void* data, Stream) noexcept override;
  Failure synchronize(Stream) noexcept override { return nullptr; }

  int make_event() override;
  Failure record(int event, Stream) noexcept override;
  Failure wait(int) noexcept override { return nullptr; }
  Failure follow(int, Stream) noexcept override { return nullptr; }
  double seconds(int from, int to) noexcept override;

  bool can_capture() const override { return false; }
  Failure begin_capture() noexcept override { return "the host captures nothing"; }
  Failure end_capture() override { return "the host captures nothing"; }
  Failure launch(Stream) noexcept override { return "the host captures nothing"; }

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::vector<std::unique_ptr<void, Free>> held_;
  std::vector<std::chrono::steady_clock::time_point> events_;
};

}  // namespace page4d
