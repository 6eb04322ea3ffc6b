#include "camera_file.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "page4d/error.h"

namespace offline {
namespace {

using page4d::Camera;
using page4d::Code;
using page4d::Error;

// The numbers of nested lists in their order, and how long each level is; false where they are no numbers or of unequal
// lengths.
bool flatten(const Json& value, size_t depth, std::vector<size_t>& shape, std::vector<double>& numbers) {
  if (!value.is_array()) {
    if (depth != shape.size() || !(value.is_number() || value.is_boolean() || value.is_null())) return false;
    numbers.push_back(value.is_null() ? NAN : value.is_boolean() ? value.get<bool>() : value.get<double>());
    return true;
  }
  if (depth == shape.size()) {
    if (!numbers.empty()) return false;
    shape.push_back(value.size());
  }
  if (value.size() != shape[depth]) return false;
  return std::all_of(value.begin(), value.end(),
                     [&](const Json& item) { return flatten(item, depth + 1, shape, numbers); });
}

std::string rows_text(const std::vector<double>& numbers, const std::vector<size_t>& shape, size_t depth,
                      size_t& next) {
  if (depth == shape.size()) return number_text(numbers[next++]);
  std::vector<std::string> parts;
  for (size_t i = 0; i < shape[depth]; ++i) parts.push_back(rows_text(numbers, shape, depth + 1, next));
  return "[" + joined(parts) + "]";
}

std::string rows_text(const std::vector<double>& numbers, const std::vector<size_t>& shape) {
  size_t next = 0;
  return rows_text(numbers, shape, 0, next);
}

std::vector<double> matrix(const std::string& camera, const char* key, const Json& value, size_t columns) {
  const std::string allowed = "3 rows of " + std::to_string(columns);
  std::vector<size_t> shape;
  std::vector<double> numbers;
  if (!flatten(value, 0, shape, numbers)) {
    const std::string got = value.is_string() ? value.get<std::string>() : value_text(value);
    throw Error(Code::kUsage, "camera " + camera + ": " + key + " is not a matrix of numbers")
        .got(got)
        .allowed(allowed);
  }
  const bool finite = std::all_of(numbers.begin(), numbers.end(), [](double number) { return std::isfinite(number); });
  if (shape != std::vector<size_t>{3, columns} || !finite) {
    throw Error(Code::kUsage, "camera " + camera + ": " + key + " has the wrong shape or holds no finite numbers")
        .got(rows_text(numbers, shape))
        .allowed(allowed);
  }
  return numbers;
}

// Of the first three columns of rows that are `pitch` numbers apart.
double determinant(const double* rows, size_t pitch) {
  const double *a = rows, *b = rows + pitch, *c = rows + 2 * pitch;
  return a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
}

bool is_rotation(const std::vector<double>& pose) {
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      double product = 0;
      for (size_t k = 0; k < 3; ++k) product += pose[4 * i + k] * pose[4 * j + k];
      if (std::abs(product - (i == j ? 1 : 0)) > 1e-3) return false;
    }
  }
  return determinant(pose.data(), 4) >= 0;
}

int whole(const std::string& camera, const char* key, const Json& value) {
  if (!value.is_number())
    throw Error(Code::kUsage, "camera " + camera + ": " + key + " is not a number")
        .got(value_text(value))
        .allowed("pixels");
  return static_cast<int>(std::clamp(value.get<double>(), -1e9, 1e9));
}

Json number_or_null(double number) { return std::isfinite(number) ? Json(number) : Json(nullptr); }

Json rows_of(const double* numbers, size_t rows, size_t columns) {
  Json result = Json::array();
  for (size_t i = 0; i < rows; ++i) {
    Json row = Json::array();
    for (size_t j = 0; j < columns; ++j) row.push_back(number_or_null(numbers[columns * i + j]));
    result.push_back(row);
  }
  return result;
}

}  // namespace

Camera camera_of(const std::string& name, const Json& values) {
  const std::vector<std::string> keys = {"width", "height", "K", "world_to_camera"};
  std::vector<std::string> missing, present;
  std::copy_if(keys.begin(), keys.end(), std::back_inserter(missing),
               [&](const std::string& key) { return !values.contains(key); });
  if (!missing.empty()) {
    for (const auto& [key, value] : values.items()) present.push_back(quoted_text(key));
    std::sort(present.begin(), present.end());
    throw Error(Code::kUsage, "camera " + name + " lacks " + joined(missing))
        .got("[" + joined(present) + "]")
        .allowed(joined(keys));
  }
  const std::vector<double> K = matrix(name, "K", values["K"], 3);
  const std::vector<double> pose = matrix(name, "world_to_camera", values["world_to_camera"], 4);
  if (!is_rotation(pose)) {
    std::vector<double> rotation;
    for (size_t i = 0; i < 12; ++i) {
      if (i % 4 < 3) rotation.push_back(std::nearbyint(pose[i] * 1e4) / 1e4);
    }
    throw Error(Code::kUsage, "camera " + name + ": world_to_camera holds no rotation")
        .got(rows_text(rotation, {3, 3}))
        .allowed("orthonormal rows, determinant +1");
  }
  if (K[0] <= 0 || K[4] <= 0 || std::abs(determinant(K.data(), 3)) < 1e-12) {
    throw Error(Code::kUsage, "camera " + name + ": K is not a calibration matrix")
        .got(rows_text(K, {3, 3}))
        .allowed("positive focal lengths in pixels");
  }
  Camera camera;
  camera.width = whole(name, "width", values["width"]);
  camera.height = whole(name, "height", values["height"]);
  std::copy(K.begin(), K.end(), camera.K);
  std::copy(pose.begin(), pose.end(), camera.world_to_camera);
  return camera;
}

Json entry_of(const Camera& camera) {
  return {{"width", camera.width},
          {"height", camera.height},
          {"K", rows_of(camera.K, 3, 3)},
          {"world_to_camera", rows_of(camera.world_to_camera, 3, 4)}};
}

Cameras read_cameras(const std::filesystem::path& path) {
  const std::string name = path_text(path);
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.is_open() || std::filesystem::is_directory(path)) {
    throw Error(Code::kUsage, name + " cannot be read: " + std::strerror(file.is_open() ? EISDIR : errno));
  }
  Json content;
  try {
    content = Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw Error(Code::kUsage, name + " is not JSON: " + error.what());
  }
  if (!content.is_object() ||
      !std::all_of(content.begin(), content.end(), [](const Json& entry) { return entry.is_object(); })) {
    throw Error(Code::kUsage, name + " is not a mapping of camera names to cameras")
        .allowed(R"({"cam0": {"width": .., "height": .., "K": .., "world_to_camera": ..}})");
  }
  Cameras cameras;
  for (const auto& [key, entry] : content.items()) cameras.emplace_back(key, camera_of(key, entry));
  return cameras;
}

}  // namespace offline
