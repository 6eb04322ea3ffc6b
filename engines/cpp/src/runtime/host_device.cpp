#include "runtime/host_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

constexpr size_t kAlignment = 256;

}  // namespace

void HostDevice::Free::operator()(void* memory) const { std::free(memory); }

void* HostDevice::allocate(size_t size) {
  const size_t whole = (size / kAlignment + 1) * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, whole);
  if (memory == nullptr) {
    throw Error(Code::kOutOfMemory, "the engines do not fit this machine's memory")
        .got(text(size, " bytes more"))
        .hint("page4d-export with a smaller --T, --V, --height or --width");
  }
  std::memset(memory, 0, whole);
  held_.emplace_back(memory);
  return memory;
}

Failure HostDevice::upload(void* target, const void* source, size_t size, Stream) noexcept {
  std::memcpy(target, source, size);
  return nullptr;
}

Failure HostDevice::copy_rows(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                              size_t rows, Stream) noexcept {
  for (size_t row = 0; row < rows; ++row) {
    std::memcpy(static_cast<char*>(target) + row * target_pitch, static_cast<const char*>(source) + row * source_pitch,
                width);
  }
  return nullptr;
}

Failure HostDevice::fill(void* target, uint32_t value, size_t count, Stream) noexcept {
  std::fill_n(static_cast<uint32_t*>(target), count, value);
  return nullptr;
}

Failure HostDevice::call_host(HostFunction function, void* data, Stream) noexcept {
  function(data);
  return nullptr;
}

int HostDevice::make_event() {
  events_.emplace_back();
  return static_cast<int>(events_.size()) - 1;
}

Failure HostDevice::record(int event, Stream) noexcept {
  events_[static_cast<size_t>(event)] = std::chrono::steady_clock::now();
  return nullptr;
}

double HostDevice::seconds(int from, int to) noexcept {
  return std::chrono::duration<double>(events_[static_cast<size_t>(to)] - events_[static_cast<size_t>(from)]).count();
}

}  // namespace page4d
