// Whole files.
#pragma once

#include <optional>
#include <string>

namespace page4d {

// Nothing where the file cannot be read; errno then says why.
std::optional<std::string> read_file(const std::string& path);

}  // namespace page4d
