// Numbers, names and paths as words, as page4d-run prints them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

namespace offline {

using Json = nlohmann::ordered_json;

// The shortest number that reads back as the same one, always with a point or an exponent: 2.0, 1e-05, nan.
std::string number_text(double value);
// With so many digits after the point.
std::string fixed(double value, int digits);
// With a comma between thousands.
std::string grouped(int64_t value);
// As Python prints such a value.
std::string value_text(const Json& value);
std::string quoted_text(std::string_view text);
std::string joined(const std::vector<std::string>& parts, std::string_view between = ", ");
// Without what changes nothing: doubled slashes, one at the end, components ".".
std::string path_text(const std::filesystem::path& path);
// Text that UTF-8 has: other bytes of a file name are written out, \udc followed by two digits.
std::string as_text(std::string_view name);

}  // namespace offline
