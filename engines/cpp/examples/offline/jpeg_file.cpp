// JPEG, by libjpeg with its defaults, which are Pillow's.
#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "image_file.h"
#include "text.h"

namespace offline {
namespace {

struct Errors {
  jpeg_error_mgr manager;
  std::jmp_buf leave;
};

[[noreturn]] void leave(j_common_ptr jpeg) { std::longjmp(reinterpret_cast<Errors*>(jpeg->err)->leave, 1); }
void no_message(j_common_ptr) {}

void nothing(j_decompress_ptr) {}
// There is no more than what lies in memory: libjpeg stops, and says how much it could not use.
boolean no_more(j_decompress_ptr) { return FALSE; }
void skip(j_decompress_ptr jpeg, long count) {
  if (count <= 0) return;
  const size_t some = std::min(static_cast<size_t>(count), jpeg->src->bytes_in_buffer);
  jpeg->src->next_input_byte += some;
  jpeg->src->bytes_in_buffer -= some;
}

enum class Step { kDone, kCut, kBroken };

// A file in memory that is being decoded. Every method may be left by longjmp inside libjpeg, and has no objects of its
// own.
class Decoder {
 public:
  explicit Decoder(const std::vector<uint8_t>& file) {
    jpeg_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = leave;
    errors_.manager.output_message = no_message;
    jpeg_create_decompress(&jpeg_);
    source_.init_source = nothing;
    source_.fill_input_buffer = no_more;
    source_.skip_input_data = skip;
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.term_source = nothing;
    source_.next_input_byte = file.data();
    source_.bytes_in_buffer = file.size();
    jpeg_.src = &source_;
  }
  Decoder(const Decoder&) = delete;
  ~Decoder() { jpeg_destroy_decompress(&jpeg_); }

  Step header() {
    if (setjmp(errors_.leave) != 0) return Step::kBroken;
    constexpr unsigned kMost = 0xFFFF;
    jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, kMost);
    return jpeg_read_header(&jpeg_, TRUE) == JPEG_SUSPENDED ? Step::kCut : Step::kDone;
  }

  // Rows follow one another in `target`.
  Step pixels(uint8_t* target, size_t row_bytes) {
    if (setjmp(errors_.leave) != 0) return Step::kBroken;
    if (!jpeg_start_decompress(&jpeg_)) return Step::kCut;
    while (jpeg_.output_scanline < jpeg_.output_height) {
      JSAMPROW row = target + row_bytes * jpeg_.output_scanline;
      if (jpeg_read_scanlines(&jpeg_, &row, 1) != 1) return Step::kCut;
    }
    return jpeg_finish_decompress(&jpeg_) ? Step::kDone : Step::kCut;
  }

  jpeg_decompress_struct& jpeg() { return jpeg_; }
  size_t left() const { return source_.bytes_in_buffer; }

 private:
  Errors errors_{};
  jpeg_source_mgr source_{};
  jpeg_decompress_struct jpeg_{};
};

void read_head(Decoder& decoder, const std::string& name) {
  const Step step = decoder.header();
  if (step == Step::kCut) throw ImageError("Truncated File Read");
  const int components = decoder.jpeg().num_components;
  if (step == Step::kBroken || (components != 1 && components != 3 && components != 4))
    throw ImageError("cannot identify image file " + quoted_text(name));
}

unsigned scaled(unsigned a, unsigned b) {
  const unsigned product = a * b + 128;  // a * b / 255, rounded
  return ((product >> 8) + product) >> 8;
}

}  // namespace

bool is_jpeg(const std::vector<uint8_t>& file) {
  return file.size() >= 3 && file[0] == 0xFF && file[1] == 0xD8 && file[2] == 0xFF;
}

ImageHeader jpeg_header(const std::vector<uint8_t>& file, const std::string& name) {
  Decoder decoder(file);
  read_head(decoder, name);
  ImageHeader header{static_cast<int>(decoder.jpeg().image_width), static_cast<int>(decoder.jpeg().image_height), 1};
  constexpr size_t kPrefix = 6;
  std::vector<uint8_t> block;  // a long one is in several markers
  for (const jpeg_marker_struct* marker = decoder.jpeg().marker_list; marker != nullptr; marker = marker->next) {
    if (marker->data_length < kPrefix || std::memcmp(marker->data, "Exif\0\0", kPrefix) != 0) continue;
    block.insert(block.end(), marker->data + (block.empty() ? 0 : kPrefix), marker->data + marker->data_length);
  }
  if (!block.empty()) header.orientation = exif_orientation(block.data(), block.size());
  return header;
}

Pixels decode_jpeg(const std::vector<uint8_t>& file, const std::string& name, Colour colour) {
  Decoder decoder(file);
  read_head(decoder, name);
  jpeg_decompress_struct& jpeg = decoder.jpeg();
  const int components = jpeg.num_components;
  jpeg.out_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
  const size_t width = jpeg.image_width, height = jpeg.image_height,
               row_bytes = width * static_cast<size_t>(components);
  std::vector<uint8_t> bytes(row_bytes * height);
  const Step step = decoder.pixels(bytes.data(), row_bytes);
  if (step == Step::kCut)
    throw ImageError("image file is truncated (" + std::to_string(decoder.left()) + " bytes not processed)");
  if (step == Step::kBroken) throw ImageError("broken data stream when reading image file");
  const bool inverted = components == 4 && jpeg.saw_Adobe_marker;
  Pixels result{static_cast<int>(width), static_cast<int>(height), colour, {}};
  if ((components == 1) == (colour == Colour::kGrey) && components != 4) {
    result.bytes = std::move(bytes);
    return result;
  }
  result.bytes.reserve(width * height * static_cast<size_t>(colour));
  for (const uint8_t* source = bytes.data(); source != bytes.data() + bytes.size(); source += components) {
    unsigned red = source[0], green = source[components > 1 ? 1 : 0], blue = source[components > 1 ? 2 : 0];
    if (components == 4) {
      const unsigned flip = inverted ? 255 : 0, light = 255 - (source[3] ^ flip);
      red = light - scaled(red ^ flip, light), green = light - scaled(green ^ flip, light),
      blue = light - scaled(blue ^ flip, light);
    }
    if (colour == Colour::kGrey) {
      result.bytes.push_back(grey_of(red, green, blue));
    } else {
      result.bytes.insert(result.bytes.end(),
                          {static_cast<uint8_t>(red), static_cast<uint8_t>(green), static_cast<uint8_t>(blue)});
    }
  }
  return result;
}

}  // namespace offline
