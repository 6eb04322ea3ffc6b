#include "cuda/cuda_device.h"

#include <algorithm>
#include <cstring>

#include "cuda/host_memory.h"
#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

cuda::Pointer address(const void* pointer) { return reinterpret_cast<cuda::Pointer>(pointer); }

}  // namespace

CudaDevice::CudaDevice(int number) : driver_(cuda::Driver::get()) {
  int count = 0;
  driver_.check(driver_.device_count(&count), "cuDeviceGetCount");
  if (number < 0 || number >= count) {
    throw Error(Code::kUsage, "there is no such GPU")
        .got(text(number))
        .allowed(count == 0 ? "none is there" : text("0 to ", count - 1));
  }
  driver_.check(driver_.device_get(&device_, number), "cuDeviceGet");
  char name[256] = "";
  driver_.check(driver_.device_name(name, sizeof name, device_), "cuDeviceGetName");
  name_ = name;
  capability_ = driver_.capability_of(device_);
  integrated_ = driver_.is_integrated(device_);
  driver_.check(driver_.retain_context(&context_, device_), "cuDevicePrimaryCtxRetain");
  try {
    const Entered entered(*this);
    entered.check();
    // a blocking stream: it and the default stream, which callers without a stream use, wait for one another
    driver_.check(driver_.make_stream(&stream_, 0), "cuStreamCreate");
  } catch (const Error&) {
    driver_.release_context(device_);
    throw;
  }
}

CudaDevice::~CudaDevice() {
  free_all();
  driver_.release_context(device_);
}

void CudaDevice::free_all() noexcept {
  const Entered entered(*this);
  driver_.synchronize(stream_);
  if (graph_ != nullptr) driver_.destroy_exec(graph_);
  for (cuda::Event event : events_) driver_.destroy_event(event);
  for (cuda::Pointer pointer : device_memory_) driver_.free(pointer);
  for (void* pointer : host_memory_) driver_.host_free(pointer);
  driver_.destroy_stream(stream_);
}

void* CudaDevice::allocate(size_t size) {
  const size_t whole = std::max<size_t>(size, 1);
  cuda::Pointer pointer = 0;
  driver_.check(driver_.allocate(&pointer, whole), "cuMemAlloc");
  device_memory_.push_back(pointer);
  driver_.check(driver_.fill(pointer, 0, whole, stream_), "cuMemsetD8Async");
  driver_.check(driver_.synchronize(stream_), "cuStreamSynchronize");
  return reinterpret_cast<void*>(pointer);
}

void* CudaDevice::staging(size_t size) {
  void* pointer = nullptr;
  driver_.check(driver_.host_allocate(&pointer, std::max<size_t>(size, 1), 0), "cuMemHostAlloc");
  host_memory_.push_back(pointer);
  std::memset(pointer, 0, size);
  return pointer;
}

size_t CudaDevice::free_memory() {
  if (integrated_) {
    if (const std::optional<size_t> available = available_host_memory()) return *available;
  }
  size_t free = 0, total = 0;
  driver_.check(driver_.memory_info(&free, &total), "cuMemGetInfo");
  return free;
}

Failure CudaDevice::enter() noexcept { return failure(driver_.push_context(context_)); }

void CudaDevice::leave() noexcept {
  cuda::Context before = nullptr;
  driver_.pop_context(&before);
}

Failure CudaDevice::upload(void* target, const void* source, size_t size, Stream stream) noexcept {
  return failure(driver_.upload(address(target), source, size, stream));
}

Failure CudaDevice::download(void* target, const void* source, size_t size, Stream stream) noexcept {
  return failure(driver_.download(target, address(source), size, stream));
}

Failure CudaDevice::copy_rows(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                              size_t rows, Stream stream) noexcept {
  cuda::Copy2D copy;
  copy.source = address(source), copy.source_pitch = source_pitch;
  copy.target = address(target), copy.target_pitch = target_pitch;
  copy.width = width, copy.height = rows;
  return failure(driver_.copy_rows(&copy, stream));
}

Failure CudaDevice::fill(void* target, uint32_t value, size_t count, Stream stream) noexcept {
  return failure(driver_.fill_words(address(target), value, count, stream));
}

Failure CudaDevice::call_host(HostFunction function, void* data, Stream stream) noexcept {
  return failure(driver_.call_host(stream, function, data));
}

Failure CudaDevice::synchronize(Stream stream) noexcept { return failure(driver_.synchronize(stream)); }

int CudaDevice::make_event() {
  cuda::Event event = nullptr;
  driver_.check(driver_.make_event(&event, cuda::kEventDefault), "cuEventCreate");
  events_.push_back(event);
  return static_cast<int>(events_.size()) - 1;
}

Failure CudaDevice::record(int event, Stream stream) noexcept {
  // in a graph, an event whose time is read outside of it must be recorded as external
  return failure(driver_.record(events_[static_cast<size_t>(event)], stream,
                                capturing_ ? cuda::kRecordExternal : cuda::kRecordDefault));
}

Failure CudaDevice::wait(int event) noexcept {
  return failure(driver_.wait_event(events_[static_cast<size_t>(event)]));
}

Failure CudaDevice::follow(int event, Stream stream) noexcept {
  return failure(driver_.follow_event(stream, events_[static_cast<size_t>(event)], 0));
}

double CudaDevice::seconds(int from, int to) noexcept {
  float milliseconds = 0;
  driver_.elapsed(&milliseconds, events_[static_cast<size_t>(from)], events_[static_cast<size_t>(to)]);
  return milliseconds / 1e3;
}

Failure CudaDevice::begin_capture() noexcept {
  const Failure failed = failure(driver_.begin_capture(stream_, cuda::kCaptureThreadLocal));
  capturing_ = failed == nullptr;
  return failed;
}

Failure CudaDevice::end_capture() {
  capturing_ = false;
  cuda::Graph graph = nullptr;
  if (Failure failed = failure(driver_.end_capture(stream_, &graph))) return failed;
  const Failure failed = failure(driver_.instantiate(&graph_, graph, 0));
  if (failed != nullptr) graph_ = nullptr;
  driver_.destroy_graph(graph);
  return failed;
}

Failure CudaDevice::launch(Stream stream) noexcept { return failure(driver_.launch(graph_, stream)); }

}  // namespace page4d
