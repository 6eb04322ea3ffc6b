// A device on which engines run: its memory, streams, events and graph.
#pragma once

#include <cstddef>
#include <cstdint>

namespace page4d {

// Why a call failed, in memory that outlives the call; null if it did not fail.
using Failure = const char*;
// A CUstream; null if the device has no streams.
using Stream = void*;
using HostFunction = void (*)(void*);

// Whatever is called after loading is noexcept and allocates nothing. Set-up throws Error.
class Device {
 public:
  virtual ~Device() = default;

  // Memory of the device, 256-aligned, zeroed, freed by the destructor. Throws Error kOutOfMemory.
  virtual void* allocate(size_t size) = 0;
  // Host memory for asynchronous copies (page-locked), zeroed, freed by the destructor.
  virtual void* staging(size_t size) = 0;
  // Bytes of the device's memory that are free.
  virtual size_t free_memory() = 0;

  // A stream for work at load, and for callers that have none.
  virtual Stream own_stream() = 0;
  // Makes the device current on this thread; leave() makes the one before current again. Around every call from
  // outside, by `Entered`.
  virtual Failure enter() noexcept = 0;
  virtual void leave() noexcept = 0;

  virtual Failure upload(void* target, const void* source, size_t size, Stream stream) noexcept = 0;
  virtual Failure download(void* target, const void* source, size_t size, Stream stream) noexcept = 0;
  // Copies rows of bytes within the device.
  virtual Failure copy_rows(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                            size_t rows, Stream stream) noexcept = 0;
  // Fills the device's memory with a value, `count` times.
  virtual Failure fill(void* target, uint32_t value, size_t count, Stream stream) noexcept = 0;
  // Calls a function on the host, in the stream's order.
  virtual Failure call_host(HostFunction function, void* data, Stream stream) noexcept = 0;
  virtual Failure synchronize(Stream stream) noexcept = 0;

  // Events, by the number that `make_event` returns.
  virtual int make_event() = 0;
  virtual Failure record(int event, Stream stream) noexcept = 0;
  virtual Failure wait(int event) noexcept = 0;  // on the host; returns at once if it was never recorded
  // Work that is put on `stream` later waits for the event, whichever stream that was recorded in.
  virtual Failure follow(int event, Stream stream) noexcept = 0;
  virtual double seconds(int from, int to) noexcept = 0;

  // A graph of everything that is put on own_stream() between begin_capture() and end_capture(): launch() repeats it.
  virtual bool can_capture() const = 0;
  virtual Failure begin_capture() noexcept = 0;
  virtual Failure end_capture() = 0;
  virtual Failure launch(Stream stream) noexcept = 0;
};

// Keeps a device current on this thread during its lifetime, unless entering failed.
class Entered {
 public:
  explicit Entered(Device& device) noexcept : device_(device), failure_(device.enter()) {}
  ~Entered() {
    if (failure_ == nullptr) device_.leave();
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

  Failure failure() const noexcept { return failure_; }
  // For set-up. Throws Error kFailure if the device did not become current.
  void check() const;

 private:
  Device& device_;
  const Failure failure_;
};

}  // namespace page4d
