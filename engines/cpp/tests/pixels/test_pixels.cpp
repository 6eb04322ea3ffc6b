// Formats of cameras against page4d_engines.clip.pixels, which is compared with OpenCV.
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "clip/fit.h"
#include "pixels/rgb_row.h"
#include "support/allocations.h"
#include "support/check.h"
#include "support/crc32.h"
#include "support/vectors.h"

namespace {

using namespace page4d;
using Json = nlohmann::ordered_json;

constexpr uint8_t kSpare = 170;  // between rows

const std::map<std::string, PixelFormat> kFormats = {
    {"nv12", PixelFormat::kNv12},
    {"nv21", PixelFormat::kNv21},
    {"yuyv", PixelFormat::kYuyv},
    {"uyvy", PixelFormat::kUyvy},
    {"bayer_rggb8", PixelFormat::kBayerRggb8},
    {"bayer_bggr8", PixelFormat::kBayerBggr8},
    {"bayer_gbrg8", PixelFormat::kBayerGbrg8},
    {"bayer_grbg8", PixelFormat::kBayerGrbg8},
};
const std::map<std::string, Fit> kModes = {
    {"stretch", Fit::kStretch}, {"crop", Fit::kCrop}, {"pad", Fit::kPad}, {"published-da3", Fit::kPublishedDa3}};

// A generated image, as in tests/vectors/clip/camera_formats.py. Nothing lies behind the last row of a plane.
struct Picture {
  // planes: whether the second one is elsewhere; spare: bytes between rows, in the second plane twice as many.
  Picture(int width, int height, int64_t seed, PixelFormat format, bool planes, size_t spare) {
    const size_t row = static_cast<size_t>(width * bytes_per_pixel(format));
    const bool has_chroma = format == PixelFormat::kNv12 || format == PixelFormat::kNv21;
    const int chroma_rows = has_chroma ? height / 2 : 0;
    first = rows(0, planes ? height : height + chroma_rows, row, seed, spare);
    image.data = first.data(), image.width = width, image.height = height, image.format = format;
    image.pitch = spare != 0 ? row + spare : 0;
    if (!has_chroma || !planes) return;
    second = rows(height, chroma_rows, row, seed, 2 * spare);
    image.chroma = second.data();
    image.chroma_pitch = spare != 0 ? row + 2 * spare : 0;
  }
  Picture(const Picture&) = delete;
  Picture& operator=(const Picture&) = delete;

  static std::vector<uint8_t> rows(int from, int count, size_t row, int64_t seed, size_t spare) {
    std::vector<uint8_t> bytes;
    for (int y = from; y < from + count; ++y) {
      for (size_t x = 0; x < row; ++x) {
        const uint64_t number = static_cast<uint64_t>(y) * row + x + 1000003ULL * static_cast<uint64_t>(seed);
        bytes.push_back(static_cast<uint8_t>(static_cast<uint32_t>(number * 2654435761ULL) >> 24));
      }
      bytes.insert(bytes.end(), y + 1 < from + count ? spare : 0, kSpare);
    }
    return bytes;
  }

  std::vector<uint8_t> first, second;
  Image image;
};

void test_images_are_pythons_bit_for_bit() {
  const Json& cases = vectors("fit.json").at("camera_formats");
  CHECK(cases.size() > 60);
  for (const Json& entry : cases) {
    const int width = entry.at("source").at(0), height = entry.at("source").at(1);
    Layout layout;
    layout.W = entry.at("engine").at(0), layout.H = entry.at("engine").at(1);
    Fitter fitter(width, height, layout, kModes.at(entry.at("mode")));
    for (const auto& [planes, spare] : {std::pair{false, 0}, {true, 0}, {true, 5}, {false, 8}}) {
      const Picture picture(width, height, entry.at("seed"), kFormats.at(entry.at("format")), planes,
                            static_cast<size_t>(spare));
      CHECK(unreadable(picture.image) == nullptr);
      std::vector<uint8_t> rgb(static_cast<size_t>(width * height * 3)),
          target(static_cast<size_t>(layout.image_bytes()));
      for (int y = 0; y < height; ++y) rgb_row(picture.image, y, rgb.data() + static_cast<ptrdiff_t>(y * width * 3));
      CHECK_TEXT(entry.dump() + std::to_string(crc32(rgb)), entry.dump() + entry.at("rgb").dump());
      CHECK(allocations_of([&] { fitter.image(picture.image, target.data()); }) == 0);
      CHECK_TEXT(entry.dump() + std::to_string(crc32(target)), entry.dump() + entry.at("crc32").dump());
    }
  }
}

// Every row stays within its own bytes, for every width up to more than two vectors.
void test_rows_of_every_width() {
  for (int width = 2; width < 72; ++width) {
    for (const auto& [name, format] : kFormats) {
      const Picture picture(width, 4, width, format, true, 0);
      if (unreadable(picture.image) != nullptr) continue;
      std::vector<uint8_t> target(static_cast<size_t>(width) * 3 + 8, kSpare);
      for (int y = 0; y < 4; ++y) rgb_row(picture.image, y, target.data());
      for (size_t i = static_cast<size_t>(width) * 3; i < target.size(); ++i) CHECK(target[i] == kSpare);
      if (width % 2 != 0) continue;
      // a prefix of a row gives the same pixels, but those at a pattern's border
      Image narrow = picture.image;
      narrow.width = width - 2, narrow.pitch = picture.image.row_bytes();
      if (unreadable(narrow) != nullptr || narrow.width == 0) continue;
      std::vector<uint8_t> part(static_cast<size_t>(narrow.width) * 3);
      rgb_row(narrow, 3, part.data());
      CHECK(std::memcmp(part.data(), target.data(), part.size() - 3) == 0);
    }
  }
}

void test_sizes_that_a_format_has_not_are_refused() {
  const std::vector<uint8_t> bytes(64 * 64 * 2);
  const auto reason = [&](PixelFormat format, int width, int height, size_t chroma_pitch = 0) {
    const char* text = unreadable({bytes.data(), width, height, 0, format, Memory::kHost, bytes.data(), chroma_pitch});
    return std::string(text != nullptr ? text : "");
  };
  for (const PixelFormat format : {PixelFormat::kNv12, PixelFormat::kNv21}) {
    CHECK(reason(format, 6, 4).empty() && reason(format, 6, 4, 6).empty());
    const std::string odd = "an image of NV12 or NV21 has an odd size\n  allowed: an even width and height";
    CHECK_TEXT(reason(format, 5, 4), odd);
    CHECK_TEXT(reason(format, 6, 5), odd);
    CHECK_TEXT(reason(format, 6, 4, 5),
               "the rows of an image's second plane overlap\n  allowed: a chroma_pitch of its width or more, or 0");
  }
  for (const PixelFormat format : {PixelFormat::kYuyv, PixelFormat::kUyvy}) {
    CHECK(reason(format, 6, 5, 1).empty());
    CHECK_TEXT(reason(format, 5, 4), "an image of YUYV or UYVY has an odd width\n  allowed: an even one");
  }
  for (const PixelFormat format :
       {PixelFormat::kBayerRggb8, PixelFormat::kBayerBggr8, PixelFormat::kBayerGbrg8, PixelFormat::kBayerGrbg8}) {
    CHECK(reason(format, 3, 3).empty());
    CHECK_TEXT(reason(format, 2, 30),
               "an image of a Bayer pattern is too small to interpolate\n  allowed: 3x3 or more");
  }
  CHECK(reason(PixelFormat::kRgb8, 1, 1).empty() && reason(PixelFormat::kMono8, 1, 1).empty());
}

}  // namespace

int main() {
  test_images_are_pythons_bit_for_bit();
  test_rows_of_every_width();
  test_sizes_that_a_format_has_not_are_refused();
}
