// Images and points in files: PNG by libpng, PLY.
#pragma once

#include <page4d/error.h>
#include <png.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

// Every function throws page4d::Error: kUsage for a file that cannot be read, kFailure for one that cannot be written.
namespace images {

namespace fs = std::filesystem;
using page4d::Code;
using page4d::Error;

// An RGB image of 8 bits, without gaps between its rows.
struct Picture {
  std::vector<unsigned char> pixels;
  int width = 0, height = 0;
};

inline Picture read_png(const fs::path& file) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto refuse = [&] { throw Error(Code::kUsage, "not a readable PNG").got(file.string() + ": " + png.message); };
  if (png_image_begin_read_from_file(&png, file.c_str()) == 0) refuse();
  png.format = PNG_FORMAT_RGB;
  Picture picture{std::vector<unsigned char>(PNG_IMAGE_SIZE(png)), int(png.width), int(png.height)};
  if (png_image_finish_read(&png, nullptr, picture.pixels.data(), 0, nullptr) == 0) refuse();
  return picture;
}

// A grey image of 8 or 16 bits, pixels [height,width]; makes the folder, too.
template <class Pixel>
void write_png(const fs::path& file, const std::vector<Pixel>& pixels, int64_t width, int64_t height) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = png_uint_32(width), png.height = png_uint_32(height);
  png.format = sizeof(Pixel) == 2 ? PNG_FORMAT_LINEAR_Y : PNG_FORMAT_GRAY;
  fs::create_directories(file.parent_path());
  if (png_image_write_to_file(&png, file.c_str(), 0, pixels.data(), 0, nullptr) == 0)
    throw Error(Code::kFailure, png.message).got(file.string());
}

// points: [n,3]; colours: [n,3], RGB. Binary PLY: x, y, z as float, red, green, blue as byte; points that are not
// finite are left out.
inline void write_points(const fs::path& file, const std::vector<float>& points,
                         const std::vector<unsigned char>& colours) {
  std::string vertices;
  size_t count = 0;
  for (size_t i = 0; i + 2 < points.size(); i += 3) {
    if (!std::isfinite(points[i] + points[i + 1] + points[i + 2])) continue;
    vertices.append(reinterpret_cast<const char*>(&points[i]), 3 * sizeof(float));
    vertices.append(reinterpret_cast<const char*>(&colours[i]), 3);
    ++count;
  }
  std::ofstream out(file, std::ios::binary);
  out << "ply\nformat binary_little_endian 1.0\nelement vertex " << count << '\n';
  for (const char* axis : {"x", "y", "z"}) out << "property float " << axis << '\n';
  for (const char* channel : {"red", "green", "blue"}) out << "property uchar " << channel << '\n';
  out << "end_header\n" << vertices << std::flush;
  if (!out) throw Error(Code::kFailure, "not written").got(file.string());
}

}  // namespace images
