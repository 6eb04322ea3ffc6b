#include "image_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "text.h"

namespace offline {
namespace {

// The file up to `most` bytes.
std::vector<uint8_t> content(const std::filesystem::path& path, size_t most) {
  const std::string name = path.filename().string();
  const auto refuse = [&name] {
    const int code = errno;
    throw ImageError(code == ENOENT
                         ? "no such file"
                         : "[Errno " + std::to_string(code) + "] " + std::strerror(code) + ": " + quoted_text(name));
  };
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) refuse();
  std::vector<uint8_t> bytes;
  constexpr size_t kPiece = 1 << 20;
  for (size_t done = 0; done < most;) {
    bytes.resize(done + std::min(kPiece, most - done));
    const size_t got = std::fread(bytes.data() + done, 1, bytes.size() - done, file);
    if (got == 0) {
      bytes.resize(done);
      break;
    }
    done += got;
    bytes.resize(done);
  }
  const bool failed = std::ferror(file) != 0;
  const int code = errno;
  std::fclose(file);
  errno = code;
  if (failed) refuse();
  return bytes;
}

[[noreturn]] void unidentified(const std::string& name) {
  throw ImageError("cannot identify image file " + quoted_text(name));
}

ImageHeader header_of(const std::vector<uint8_t>& file, const std::string& name) {
  const ImageHeader header = is_png(file)    ? png_header(file, name)
                             : is_jpeg(file) ? jpeg_header(file, name)
                                             : ImageHeader{};
  if (header.width < 1 || header.height < 1) unidentified(name);
  // such a file would be far larger in memory than on disk
  constexpr int64_t kMostPixels = 2 * (int64_t{1024} * 1024 * 1024 / 4 / 3);
  const int64_t pixels = int64_t{header.width} * header.height;
  if (pixels > kMostPixels) {
    const std::string words =
        " exceeds limit of " + std::to_string(kMostPixels) + " pixels, could be decompression bomb DOS attack.";
    throw ImageError("Image size (" + std::to_string(pixels) + " pixels)" + words);
  }
  return header;
}

// The upright image, of one that is stored as `orientation` says.
Pixels turned(Pixels stored, int orientation) {
  if (orientation == 1) return stored;
  const bool across = orientation >= 5;
  const int W = stored.width, H = stored.height;
  Pixels result{across ? H : W, across ? W : H, stored.colour, std::vector<uint8_t>(stored.bytes.size())};
  const auto pixel = static_cast<size_t>(stored.colour);
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  uint8_t* target = result.bytes.data();
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x, target += pixel) {
      const int column = across ? y : x, row = across ? x : y;
      const uint8_t* source = stored.row(from_below ? H - 1 - row : row) +
                              pixel * static_cast<size_t>(from_right ? W - 1 - column : column);
      std::memcpy(target, source, pixel);
    }
  }
  return result;
}

}  // namespace

ImageHeader read_header(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  constexpr size_t kUsual = 1 << 16;  // holds most headers; a large EXIF block or colour profile needs all of the file
  const std::vector<uint8_t> start = content(path, kUsual);
  if (start.size() < kUsual) return header_of(start, name);
  try {
    return header_of(start, name);
  } catch (const ImageError&) {
    return header_of(content(path, SIZE_MAX), name);
  }
}

Pixels read_image(const std::filesystem::path& path, Colour colour) {
  const std::string name = path.filename().string();
  const std::vector<uint8_t> file = content(path, SIZE_MAX);
  const int orientation = header_of(file, name).orientation;
  return turned(is_png(file) ? decode_png(file, name, colour) : decode_jpeg(file, name, colour), orientation);
}

int exif_orientation(const uint8_t* block, size_t size) {
  constexpr size_t kPrefix = 6, kHeader = 8, kEntry = 12;
  while (size >= kPrefix && std::memcmp(block, "Exif\0\0", kPrefix) == 0) {
    block += kPrefix;
    size -= kPrefix;
  }
  if (size == 0) return 1;
  const bool big = block[0] == 'M';
  const auto known = [&](const char* mark) { return size >= 4 && std::memcmp(block, mark, 4) == 0; };
  if (!(known("II*\0") || known("MM\0*") || known("II\0*") || known("MM*\0"))) {
    std::string header;
    for (size_t i = 0; i < std::min(size, kHeader); ++i) {
      char code[8];
      const bool plain = block[i] >= 0x20 && block[i] < 0x7F && block[i] != '\\' && block[i] != '\'';
      std::snprintf(code, sizeof code, plain ? "%c" : "\\x%02x", block[i]);
      header += code;
    }
    throw ImageError("not a TIFF file (header b'" + header + "' not valid)");
  }
  if (size < kHeader) throw ImageError("unpack requires a buffer of 4 bytes");
  const auto number = [&](size_t at, size_t bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= uint32_t{block[at + i]} << (8 * (big ? bytes - 1 - i : i));
    return value;
  };
  const size_t start = number(4, 4);
  if (start + 2 > size) return 1;
  const size_t count = number(start, 2);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = start + 2 + kEntry * i;
    if (at + kEntry > size) return 1;
    constexpr uint32_t kOrientation = 0x0112, kByte = 1, kShort = 3, kLong = 4;
    if (number(at, 2) != kOrientation) continue;
    const uint32_t type = number(at + 2, 2);
    const uint32_t value = number(at + 8, type == kByte ? 1 : type == kShort ? 2 : 4);
    return (type == kByte || type == kShort || type == kLong) && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace offline
