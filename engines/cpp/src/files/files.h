// Whole files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace page4d {

// Nothing where the file cannot be read, is larger than `most` bytes (EFBIG), or is no regular file (EINVAL), which is
// not waited for; errno says why.
std::optional<std::string> read_file(const std::string& path, size_t most = SIZE_MAX);

}  // namespace page4d
