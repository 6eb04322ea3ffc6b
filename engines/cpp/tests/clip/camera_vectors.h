// Reads numbers and cameras from golden vectors.
#pragma once

#include <limits>

#include "page4d/image.h"
#include "support/vectors.h"

// null stands for NaN.
inline double number_of(const nlohmann::ordered_json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

// An entry of cameras.json.
inline page4d::Camera camera_of(const nlohmann::ordered_json& entry) {
  page4d::Camera camera;
  camera.width = entry.at("width");
  camera.height = entry.at("height");
  for (size_t row = 0; row < 3; ++row) {
    for (size_t column = 0; column < 3; ++column)
      camera.K[row * 3 + column] = number_of(entry.at("K").at(row).at(column));
    for (size_t column = 0; column < 4; ++column)
      camera.world_to_camera[row * 4 + column] = number_of(entry.at("world_to_camera").at(row).at(column));
  }
  return camera;
}
