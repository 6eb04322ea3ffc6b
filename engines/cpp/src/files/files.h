// Whole files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace page4d {

// Nothing if the file cannot be read, is larger than `most` bytes (EFBIG), or is no regular file (EINVAL); errno says
// why. Never waits, as for the writer of a FIFO.
std::optional<std::string> read_file(const std::string& path, size_t most = SIZE_MAX);

}  // namespace page4d
