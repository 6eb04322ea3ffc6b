// The golden vectors of tests/vectors, which Python makes.
#pragma once

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "support/check.h"

// name: of the file, "plans.json". Read once, kept until the program ends.
inline const nlohmann::ordered_json& vectors(const std::string& name) {
  static std::map<std::string, nlohmann::ordered_json> read;
  const auto [entry, is_new] = read.try_emplace(name);
  if (is_new) {
    std::ifstream file(std::string(PAGE4D_VECTORS) + "/" + name);
    CHECK(file.good());
    entry->second = nlohmann::ordered_json::parse(file);
  }
  return entry->second;
}

inline std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}
