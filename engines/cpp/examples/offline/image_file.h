// PNG and JPEG files: decoded to RGB or grey as Pillow does it, turned as their EXIF orientation says; PNG files
// written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace offline {

// Why a file is no image that can be read, in Pillow's words.
class ImageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Colour { kGrey = 1, kRgb = 3 };  // the value is the number of bytes of a pixel

struct Pixels {
  int width = 0, height = 0;
  Colour colour = Colour::kRgb;
  std::vector<uint8_t> bytes;  // [height,width,bytes of a pixel]

  uint8_t* row(int y) { return bytes.data() + row_bytes() * static_cast<size_t>(y); }
  size_t row_bytes() const { return static_cast<size_t>(width) * static_cast<size_t>(colour); }
};

// What a file's header says, as the file stores it.
struct ImageHeader {
  int width = 0, height = 0;
  int orientation = 1;  // EXIF's, 1 to 8
};

// Reads no pixels. Throws ImageError.
ImageHeader read_header(const std::filesystem::path& path);

// Throws ImageError. Colours become grey as 0.299 R + 0.587 G + 0.114 B; alpha is dropped; 16 bits become 8.
Pixels read_image(const std::filesystem::path& path, Colour colour);

// The whole file as PNG, at zlib's fastest level. `bytes`: [height,width], or [height,width,3] of RGB.
std::vector<uint8_t> encode_png(int width, int height, Colour colour, const uint8_t* bytes);
// The same of 16 bits a pixel, grey, [height,width].
std::vector<uint8_t> encode_png(int width, int height, const uint16_t* values);

// Decoders of whole files that lie in memory; not turned. Throw ImageError.
bool is_png(const std::vector<uint8_t>& file);
ImageHeader png_header(const std::vector<uint8_t>& file, const std::string& name);
Pixels decode_png(const std::vector<uint8_t>& file, const std::string& name, Colour colour);
bool is_jpeg(const std::vector<uint8_t>& file);
ImageHeader jpeg_header(const std::vector<uint8_t>& file, const std::string& name);
Pixels decode_jpeg(const std::vector<uint8_t>& file, const std::string& name, Colour colour);

// 1 to 8, as an EXIF block has it; 1 where it has none. Throws ImageError where the block is no EXIF.
int exif_orientation(const uint8_t* block, size_t size);
// As Pillow: 16 bits of fraction, rounded.
inline uint8_t grey_of(unsigned red, unsigned green, unsigned blue) {
  return static_cast<uint8_t>((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
}

}  // namespace offline
