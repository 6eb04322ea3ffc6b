// The machine's available memory.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace page4d {

// Bytes that programs can still allocate: the kernel's MemAvailable, which counts the page cache as free. Nothing if
// the file does not say.
std::optional<size_t> available_host_memory(const std::string& meminfo = "/proc/meminfo");

}  // namespace page4d
