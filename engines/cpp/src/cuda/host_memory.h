// How much memory the machine can give.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace page4d {

// Bytes that programs can still take: the kernel's MemAvailable, which counts the page cache as free. Nothing where the
// file does not say.
std::optional<size_t> available_host_memory(const std::string& meminfo = "/proc/meminfo");

}  // namespace page4d
