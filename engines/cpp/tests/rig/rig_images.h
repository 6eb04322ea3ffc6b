// Images that can be told apart: every byte depends on the camera and on the image's number.
#pragma once

#include <cstdint>
#include <vector>

#include "page4d/rig.h"

namespace rig_test {

constexpr int kHeight = 28, kWidth = 42;

inline page4d::EngineInfo engines(int64_t T, int64_t V, bool takes_present = false) {
  page4d::EngineInfo info;
  info.takes_present = takes_present;
  info.layout = {T, V, kHeight, kWidth, 1};
  return info;
}

inline uint8_t byte_of(int camera, int64_t number, size_t i) {
  return static_cast<uint8_t>(static_cast<size_t>(camera * 61 + number * 37) + i * 5);
}

struct Picture {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(static_cast<size_t>(kHeight) * kWidth * 3);
  page4d::Image image{bytes.data(), kWidth, kHeight};

  Picture() = default;
  Picture(int camera, int64_t number) { draw(camera, number); }
  Picture(const Picture&) = delete;
  Picture& operator=(const Picture&) = delete;

  void draw(int camera, int64_t number) {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_of(camera, number, i);
  }
};

inline bool shows(const page4d::Image& image, int camera, int64_t number) {
  const auto* bytes = static_cast<const uint8_t*>(image.data);
  bool same = image.width == kWidth && image.height == kHeight && image.row_bytes() == kWidth * 3 &&
              image.memory == page4d::Memory::kHost;
  for (size_t i = 0; same && i < size_t{kHeight} * kWidth * 3; ++i) same = bytes[i] == byte_of(camera, number, i);
  return same;
}

inline bool is_black(const page4d::Image& image) {
  const auto* bytes = static_cast<const uint8_t*>(image.data);
  bool black = true;
  for (size_t i = 0; i < size_t{kHeight} * kWidth * 3; ++i) black = black && bytes[i] == 0;
  return black;
}

}  // namespace rig_test
