// PNG, by libpng: what of it Pillow reads, and writing.
#include <png.h>
#include <zlib.h>

#include <cmath>
#include <csetjmp>
#include <cstring>

#include "image_file.h"
#include "text.h"

namespace offline {
namespace {

constexpr size_t kMagic = 8, kChunk = 12, kHead = 8;

uint32_t number(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | uint32_t{at[3]};
}

struct Source {
  const uint8_t* next;
  const uint8_t* end;
  bool cut;  // more was asked for than there is
};

void give(png_structp png, png_bytep target, size_t size) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (static_cast<size_t>(source->end - source->next) < size) {
    source->cut = true;
    png_error(png, "cut");
  }
  std::memcpy(target, source->next, size);
  source->next += size;
}

void take(png_structp png, png_bytep bytes, size_t size) {
  auto* target = static_cast<std::vector<uint8_t>*>(png_get_io_ptr(png));
  target->insert(target->end(), bytes, bytes + size);
}

void nothing(png_structp) {}
void no_warning(png_structp, png_const_charp) {}
[[noreturn]] void leave(png_structp png, png_const_charp) { png_longjmp(png, 1); }

// Frees what libpng holds.
struct Reader {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, leave, no_warning);
  png_infop info = png_create_info_struct(png);
  Reader() = default;
  Reader(const Reader&) = delete;
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

struct Writer {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, leave, no_warning);
  png_infop info = png_create_info_struct(png);
  Writer() = default;
  Writer(const Writer&) = delete;
  ~Writer() { png_destroy_write_struct(&png, &info); }
};

struct Samples {
  png_uint_32 width = 0, height = 0;
  int depth = 0, type = 0, channels = 0;
  png_colorp palette = nullptr;
  int colours = 0;
  size_t row_bytes = 0;
};

// The steps that libpng may leave by longjmp stand in functions without objects of their own.
bool begin(png_structp png, png_infop info, Samples& samples) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_benign_errors(png, 1);
  png_set_crc_action(png, PNG_CRC_QUIET_USE,
                     PNG_CRC_QUIET_USE);  // where pixels are, Pillow does not look at checksums either
  png_set_check_for_invalid_index(png, 0);
  png_read_info(png, info);
  png_get_IHDR(png, info, &samples.width, &samples.height, &samples.depth, &samples.type, nullptr, nullptr, nullptr);
  if (samples.type == PNG_COLOR_TYPE_PALETTE) {
    png_get_PLTE(png, info, &samples.palette, &samples.colours);
    png_set_packing(png);
  } else if (samples.type == PNG_COLOR_TYPE_GRAY && samples.depth < 8) {
    png_set_expand_gray_1_2_4_to_8(png);
  } else if (samples.type != PNG_COLOR_TYPE_GRAY && samples.depth == 16) {
    png_set_strip_16(png);
  }
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  samples.channels = png_get_channels(png, info);
  samples.row_bytes = png_get_rowbytes(png, info);
  return true;
}

bool read_rows(png_structp png, png_bytepp rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_image(png, rows);
  return true;
}

bool write_rows(png_structp png, png_infop info, png_bytepp rows, png_uint_32 width, png_uint_32 height, int depth,
                int type) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_compression_level(png, 1);
  png_set_IHDR(png, info, width, height, depth, type, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  png_write_image(png, rows);
  png_write_end(png, nullptr);
  return true;
}

std::vector<uint8_t> encode(int width, int height, int depth, int type, const uint8_t* bytes, size_t row_bytes) {
  std::vector<uint8_t> file;
  std::vector<png_bytep> rows;
  for (int y = 0; y < height; ++y) rows.push_back(const_cast<png_bytep>(bytes + row_bytes * static_cast<size_t>(y)));
  Writer writer;
  png_set_write_fn(writer.png, &file, take, nothing);
  if (!write_rows(writer.png, writer.info, rows.data(), static_cast<png_uint_32>(width),
                  static_cast<png_uint_32>(height), depth, type)) {
    throw std::bad_alloc();  // nothing else can fail: the arguments are this program's own
  }
  return file;
}

// One row of samples as pixels.
void convert(const Samples& samples, const uint8_t* source, Colour colour, uint8_t* target) {
  const auto channels = static_cast<size_t>(samples.channels);
  for (size_t x = 0; x < samples.width; ++x) {
    unsigned red, green, blue;
    bool grey = false;
    if (samples.type == PNG_COLOR_TYPE_PALETTE) {
      const int index = source[x];
      const png_color none{0, 0, 0};
      const png_color& found = index < samples.colours ? samples.palette[index] : none;
      red = found.red, green = found.green, blue = found.blue;
    } else if (samples.type == PNG_COLOR_TYPE_GRAY && samples.depth == 16) {
      red = green = blue = static_cast<unsigned>(std::nearbyint((source[2 * x] << 8 | source[2 * x + 1]) / 257.0));
      grey = true;
    } else if (channels < 3) {
      red = green = blue = source[channels * x];
      grey = true;
    } else {
      red = source[channels * x], green = source[channels * x + 1], blue = source[channels * x + 2];
    }
    if (colour == Colour::kGrey) {
      *target++ = grey ? static_cast<uint8_t>(red) : grey_of(red, green, blue);
    } else {
      *target++ = static_cast<uint8_t>(red), *target++ = static_cast<uint8_t>(green),
      *target++ = static_cast<uint8_t>(blue);
    }
  }
}

}  // namespace

bool is_png(const std::vector<uint8_t>& file) {
  return file.size() >= kMagic && std::memcmp(file.data(), "\x89PNG\r\n\x1a\n", kMagic) == 0;
}

ImageHeader png_header(const std::vector<uint8_t>& file, const std::string& name) {
  ImageHeader header;
  const uint8_t* exif = nullptr;
  size_t exif_size = 0;
  for (size_t at = kMagic;;) {
    const auto unidentified = [&] { return ImageError("cannot identify image file " + quoted_text(name)); };
    if (file.size() - at < kHead) throw unidentified();
    const size_t size = number(&file[at]);
    const uint8_t* kind = &file[at + 4];
    if (std::memcmp(kind, "IDAT", 4) == 0) break;
    const size_t left = file.size() - at - kHead;
    if (left < size) throw ImageError("Truncated File Read");
    if (left < size + 4) throw unidentified();
    const uint8_t* data = kind + 4;
    if (crc32(crc32(0, nullptr, 0), kind, static_cast<uInt>(size + 4)) != number(data + size)) throw unidentified();
    if (std::memcmp(kind, "IHDR", 4) == 0 && size >= 13) {
      constexpr uint32_t kLargest = 0x7FFFFFFF;
      if (number(data) > kLargest || number(data + 4) > kLargest) throw unidentified();
      header.width = static_cast<int>(number(data)), header.height = static_cast<int>(number(data + 4));
    } else if (std::memcmp(kind, "eXIf", 4) == 0) {
      exif = data, exif_size = size;
    } else if (std::memcmp(kind, "IEND", 4) == 0) {
      break;
    }
    at += kChunk + size;
  }
  if (exif != nullptr) header.orientation = exif_orientation(exif, exif_size);
  return header;
}

Pixels decode_png(const std::vector<uint8_t>& file, const std::string& name, Colour colour) {
  Source source{file.data(), file.data() + file.size(), false};
  Reader reader;
  png_set_read_fn(reader.png, &source, give);
  Samples samples;
  if (!begin(reader.png, reader.info, samples)) {
    throw ImageError(source.cut ? "image file is truncated (0 bytes not processed)"
                                : "cannot identify image file " + quoted_text(name));
  }
  std::vector<uint8_t> bytes(samples.row_bytes * samples.height);
  std::vector<png_bytep> rows;
  for (size_t y = 0; y < samples.height; ++y) rows.push_back(&bytes[samples.row_bytes * y]);
  const uint8_t* start = source.next;
  if (!read_rows(reader.png, rows.data())) {
    if (!source.cut) throw ImageError("broken data stream when reading image file");
    throw ImageError(start == source.end ? "image file is truncated (0 bytes not processed)"
                                         : "image file is truncated");
  }
  Pixels result{static_cast<int>(samples.width), static_cast<int>(samples.height), colour, {}};
  result.bytes.resize(result.row_bytes() * samples.height);
  for (size_t y = 0; y < samples.height; ++y) convert(samples, rows[y], colour, result.row(static_cast<int>(y)));
  return result;
}

std::vector<uint8_t> encode_png(int width, int height, Colour colour, const uint8_t* bytes) {
  const int type = colour == Colour::kRgb ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY;
  return encode(width, height, 8, type, bytes, static_cast<size_t>(width) * static_cast<size_t>(colour));
}

std::vector<uint8_t> encode_png(int width, int height, const uint16_t* values) {
  std::vector<uint8_t> bytes;  // PNG has the high byte first
  const size_t count = static_cast<size_t>(width) * static_cast<size_t>(height);
  bytes.reserve(2 * count);
  for (size_t i = 0; i < count; ++i) {
    bytes.push_back(static_cast<uint8_t>(values[i] >> 8));
    bytes.push_back(static_cast<uint8_t>(values[i] & 0xFF));
  }
  return encode(width, height, 16, PNG_COLOR_TYPE_GRAY, bytes.data(), 2 * static_cast<size_t>(width));
}

}  // namespace offline
