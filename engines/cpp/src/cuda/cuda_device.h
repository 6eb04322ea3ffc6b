// A GPU as a Device: memory, a stream, events and one graph.
#pragma once

#include <string>
#include <vector>

#include "cuda/driver.h"
#include "runtime/device.h"

namespace page4d {

class CudaDevice final : public Device {
 public:
  // Throws Error: kMissingBackend without a driver, kUsage if there is no GPU of that number.
  explicit CudaDevice(int number);
  ~CudaDevice() override;

  const std::string& name() const { return name_; }
  int capability() const { return capability_; }  // compute capability times ten

  void* allocate(size_t size) override;
  void* staging(size_t size) override;
  // On an integrated GPU the memory available on the host: the driver counts the page cache as used.
  size_t free_memory() override;

  Stream own_stream() override { return stream_; }
  Failure enter() noexcept override;
  void leave() noexcept override;

  Failure upload(void* target, const void* source, size_t size, Stream stream) noexcept override;
  Failure download(void* target, const void* source, size_t size, Stream stream) noexcept override;
  Failure copy_rows(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                    size_t rows, Stream stream) noexcept override;
  Failure fill(void* target, uint32_t value, size_t count, Stream stream) noexcept override;
  Failure call_host(HostFunction function, void* data, Stream stream) noexcept override;
  Failure synchronize(Stream stream) noexcept override;

  int make_event() override;
  Failure record(int event, Stream stream) noexcept override;
  Failure wait(int event) noexcept override;
  Failure follow(int event, Stream stream) noexcept override;
  double seconds(int from, int to) noexcept override;

  bool can_capture() const override { return true; }
  Failure begin_capture() noexcept override;
  Failure end_capture() override;
  Failure launch(Stream stream) noexcept override;

 private:
  void free_all() noexcept;
  Failure failure(cuda::Result result) const noexcept {
    return result == cuda::kSuccess ? nullptr : driver_.name_of(result);
  }

  const cuda::Driver& driver_;
  cuda::DeviceNumber device_ = 0;
  cuda::Context context_ = nullptr;
  cuda::CuStream stream_ = nullptr;
  std::string name_;
  int capability_ = 0;
  bool integrated_ = false;
  bool capturing_ = false;
  cuda::GraphExec graph_ = nullptr;
  std::vector<cuda::Pointer> device_memory_;
  std::vector<void*> host_memory_;
  std::vector<cuda::Event> events_;
};

}  // namespace page4d
