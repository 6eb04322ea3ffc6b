// Memory, and what is done with it in order, of one place where engines run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace page4d {

// Why a call of the running chain failed, in memory that outlives it: null where it did not.
using Failure = const char*;
// A CUstream; null where the place has none.
using Stream = void*;
using HostFunction = void (*)(void*);

// Everything that may run after loading is noexcept and allocates nothing. Set-up throws Error.
class Device {
 public:
  virtual ~Device() = default;

  // 256-aligned, zeroed, held until this object goes. Throws Error kOutOfMemory.
  virtual void* allocate(size_t size) = 0;
  // Host memory, zeroed, that copies from and to the device do not wait for. Held until this object goes.
  virtual void* staging(size_t size) = 0;
  // Bytes of the device's memory that are free.
  virtual size_t free_memory() = 0;

  // An order of its own, for work at load and for callers that have none.
  virtual Stream own_stream() = 0;
  // Around every call from outside, as `Entered`: the device becomes current on this thread, and the one before does
  // again.
  virtual Failure enter() noexcept = 0;
  virtual void leave() noexcept = 0;

  virtual Failure upload(void* target, const void* source, size_t size, Stream stream) noexcept = 0;
  virtual Failure download(void* target, const void* source, size_t size, Stream stream) noexcept = 0;
  // Rows of bytes within the device.
  virtual Failure copy_rows(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                            size_t rows, Stream stream) noexcept = 0;
  // A function of the host's, in the stream's order.
  virtual Failure call_host(HostFunction function, void* data, Stream stream) noexcept = 0;
  virtual Failure synchronize(Stream stream) noexcept = 0;

  // Marks in a stream, numbered by `make_event`.
  virtual int make_event() = 0;
  virtual Failure record(int event, Stream stream) noexcept = 0;
  virtual Failure wait(int event) noexcept = 0;  // on the host; at once where it was never recorded
  // What is put on a stream from now on comes after the mark, whichever stream that is in.
  virtual Failure follow(int event, Stream stream) noexcept = 0;
  virtual double seconds(int from, int to) noexcept = 0;

  // Everything that is put on the own stream in between becomes one launch, where the device has such. False from
  // end_capture: it could not be made.
  virtual bool can_capture() const = 0;
  virtual Failure begin_capture() noexcept = 0;
  virtual Failure end_capture() = 0;
  virtual Failure launch(Stream stream) noexcept = 0;
};

// The device is current on this thread while this object lives, unless that failed.
class Entered {
 public:
  explicit Entered(Device& device) noexcept : device_(device), failure_(device.enter()) {}
  ~Entered() {
    if (failure_ == nullptr) device_.leave();
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

  Failure failure() const noexcept { return failure_; }
  // Throws Error kFailure where the device did not become current: for set-up.
  void check() const;

 private:
  Device& device_;
  const Failure failure_;
};

}  // namespace page4d
