// Images, masks and cameras in the engines' size, against page4d_engines.fit and against the formula in float64.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "clip/camera_vectors.h"
#include "clip/fit.h"
#include "support/allocations.h"
#include "support/check.h"
#include "support/crc32.h"

namespace {

using namespace page4d;
using Json = nlohmann::ordered_json;

constexpr uint8_t kSpare = 170;  // between rows

const std::map<std::string, Fit> kModes = {{"none", Fit::kNone},
                                           {"stretch", Fit::kStretch},
                                           {"crop", Fit::kCrop},
                                           {"pad", Fit::kPad},
                                           {"published", Fit::kPublished},
                                           {"published-pad", Fit::kPublishedPad},
                                           {"published-da3", Fit::kPublishedDa3}};
const std::map<std::string, PixelFormat> kFormats = {{"rgb8", PixelFormat::kRgb8},
                                                     {"bgr8", PixelFormat::kBgr8},
                                                     {"rgba8", PixelFormat::kRgba8},
                                                     {"bgra8", PixelFormat::kBgra8},
                                                     {"mono8", PixelFormat::kMono8}};

// A byte of a generated image, as in tests/vectors/make.py.
uint8_t byte_of(int x, int y, int c, int width, int seed) {
  const int kind = (x / 16 + y / 16 + seed) % 3;
  if (kind == 2) return (x + y) / 4 % 2 * 255;
  if (kind == 1)
    return static_cast<uint8_t>(
        static_cast<uint32_t>((static_cast<uint64_t>(y * width + x) * 3 + c + 1000003ULL * seed) * 2654435761ULL) >>
        24);
  const int ramp = (3 * x + 5 * y + 85 * c + 11 * seed) % 512;
  return static_cast<uint8_t>(std::min(ramp, 511 - ramp));
}

struct Picture {
  Picture(int width, int height, int seed, PixelFormat format, size_t spare) {
    const int step = bytes_per_pixel(format);
    const bool swapped = format == PixelFormat::kBgr8 || format == PixelFormat::kBgra8;
    const size_t pitch = static_cast<size_t>(width * step) + spare;
    bytes.assign(pitch * static_cast<size_t>(height), kSpare);
    bytes.resize(bytes.size() - spare);  // nothing lies behind the last row
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int i = 0; i < step; ++i) {
          const int channel = i == 3 ? 0 : swapped ? 2 - i : i;
          const uint8_t byte = byte_of(x, y, channel, width, seed);
          bytes[static_cast<size_t>(y) * pitch + static_cast<size_t>(x * step + i)] =
              i == 3 ? static_cast<uint8_t>(255 - byte) : byte;
        }
    image.data = bytes.data();
    image.width = width;
    image.height = height;
    image.pitch = spare != 0 ? pitch : 0;
    image.format = format;
  }
  Picture(const Picture&) = delete;
  Picture& operator=(const Picture&) = delete;

  std::vector<uint8_t> bytes;
  Image image;
};

Layout layout_of(const Json& engine) {
  Layout layout;
  layout.W = engine.at(0);
  layout.H = engine.at(1);
  return layout;
}

Fitter fitter_of(const Json& entry) {
  return {entry.at("source").at(0), entry.at("source").at(1), layout_of(entry.at("engine")),
          kModes.at(entry.at("mode"))};
}

Picture picture_of(const Json& entry, PixelFormat format) {
  return {entry.at("source").at(0), entry.at("source").at(1), entry.at("seed"), format, entry.at("spare")};
}

void test_images_are_pythons_bit_for_bit() {
  const Json& cases = vectors("fit.json").at("images");
  CHECK(cases.size() > 30);
  for (const Json& entry : cases) {
    Fitter fitter = fitter_of(entry);
    const Picture picture = picture_of(entry, kFormats.at(entry.at("format")));
    std::vector<uint8_t> target(static_cast<size_t>(layout_of(entry.at("engine")).image_bytes()));
    for (const int before : {77, 200}) {  // whatever was there before, and a second time
      std::fill(target.begin(), target.end(), static_cast<uint8_t>(before));
      CHECK(allocations_of([&] { fitter.image(picture.image, target.data()); }) == 0);
      if (entry.contains("hex")) CHECK(std::string(target.begin(), target.end()) == from_hex(entry.at("hex")));
      CHECK_TEXT(entry.at("source").dump() + entry.at("mode").dump() + std::to_string(crc32(target)),
                 entry.at("source").dump() + entry.at("mode").dump() + entry.at("crc32").dump());
    }
  }
}

// The same image in every format; alpha and the bytes between rows do not matter.
void test_formats_show_the_same_image() {
  Layout layout;
  layout.H = 28;
  layout.W = 42;
  for (const auto& [name, mode] : {std::pair{"crop", Fit::kCrop}, {"pad", Fit::kPad}, {"stretch", Fit::kStretch}}) {
    for (const auto& [width, height] : {std::pair{61, 50}, {42, 28}, {42, 50}, {61, 28}}) {
      Fitter fitter(width, height, layout, mode);
      std::vector<uint8_t> expected(static_cast<size_t>(layout.image_bytes())), actual = expected;
      fitter.image(Picture(width, height, 1, PixelFormat::kRgb8, 0).image, expected.data());
      for (const PixelFormat format : {PixelFormat::kBgr8, PixelFormat::kRgba8, PixelFormat::kBgra8}) {
        fitter.image(Picture(width, height, 1, format, 3).image, actual.data());
        CHECK_TEXT(std::string(actual.begin(), actual.end()), std::string(expected.begin(), expected.end()));
      }
      fitter.image(Picture(width, height, 1, PixelFormat::kMono8, 3).image, actual.data());
      for (size_t i = 0; i < actual.size(); ++i) CHECK(actual[i] == actual[i / 3 * 3]);
      CHECK(actual != expected);
    }
  }
}

// The weights of an axis' source pixels for a pixel of the result, by the formula.
std::vector<double> weights_of(int source, double low, double high, int size, int pixel) {
  const double scale = (high - low) / size, stretch = std::max(scale, 1.0), centre = low + (pixel + 0.5) * scale;
  std::vector<double> weights(static_cast<size_t>(source));
  double sum = 0;
  for (int at = 0; at < source; ++at) {
    const double x = std::abs(at + 0.5 - centre) / stretch;
    const double weight = x < 1   ? 1.5 * x * x * x - 2.5 * x * x + 1
                          : x < 2 ? -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2
                                  : 0;
    sum += weights[static_cast<size_t>(at)] = weight;
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

double byte_range(double value) { return std::min(std::max(std::floor(value + 0.5), 0.0), 255.0); }

void test_images_are_the_formulas() {
  std::mt19937 random(3);
  const auto any = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  for (int trial = 0; trial < 60; ++trial) {
    const int width = any(1, 50), height = any(1, 50), out_width = any(1, 50),
              out_height = trial % 5 == 0 ? height : any(1, 50);
    Resample::Box box{0, 0, static_cast<float>(width), static_cast<float>(height)};
    if (trial % 3 == 0)
      box = {static_cast<float>(width) * 0.21F, 0, static_cast<float>(width) * 0.83F,
             static_cast<float>(height) * 0.77F};
    const Picture picture(width, height, trial, PixelFormat::kRgb8, 0);
    std::vector<uint8_t> actual(static_cast<size_t>(out_width * out_height * 3));
    Resample resample(width, height, box, out_width, {out_height, 0, out_height});
    CHECK(allocations_of([&] { resample.run(picture.image, actual.data(), static_cast<size_t>(out_width) * 3); }) == 0);
    std::vector<double> between(static_cast<size_t>(height * out_width * 3));
    for (int x = 0; x < out_width; ++x) {
      const std::vector<double> weights = weights_of(width, box.left, box.right, out_width, x);
      for (int i = 0; i < height * 3; ++i) {
        double sum = 0;
        for (int at = 0; at < width; ++at)
          sum +=
              weights[static_cast<size_t>(at)] * picture.bytes[static_cast<size_t>((i / 3 * width + at) * 3 + i % 3)];
        between[static_cast<size_t>((i / 3 * out_width + x) * 3 + i % 3)] = byte_range(sum);
      }
    }
    for (int y = 0; y < out_height; ++y) {
      const std::vector<double> weights = weights_of(height, box.top, box.bottom, out_height, y);
      for (int i = 0; i < out_width * 3; ++i) {
        double sum = 0;
        for (int at = 0; at < height; ++at)
          sum += weights[static_cast<size_t>(at)] * between[static_cast<size_t>(at * out_width * 3 + i)];
        CHECK(std::abs(byte_range(sum) - actual[static_cast<size_t>(y * out_width * 3 + i)]) <= 1);
      }
    }
  }
}

void test_means_are_pythons() {
  const Json& cases = vectors("fit.json").at("masks");
  CHECK(cases.size() > 15);
  for (const Json& entry : cases) {
    Fitter fitter = fitter_of(entry);
    const Picture picture = picture_of(entry, PixelFormat::kMono8);
    std::vector<float> actual(entry.at("mean").size(), -1.0F);
    CHECK(static_cast<int64_t>(actual.size()) == layout_of(entry.at("engine")).P());
    CHECK(allocations_of([&] { fitter.patch_mean(picture.image, actual.data()); }) == 0);
    for (size_t i = 0; i < actual.size(); ++i) {
      const float expected = entry.at("mean").at(i);
      CHECK(actual[i] == expected || actual[i] == std::nextafter(expected, actual[i]));
    }
  }
}

void check_numbers(const double* actual, const double* expected, int count) {
  for (int i = 0; i < count; ++i)
    CHECK(std::abs(actual[i] - expected[i]) <= 1e-12 * std::max(1.0, std::abs(expected[i])));
}

void test_cameras_are_pythons() {
  const Json& cases = vectors("fit.json").at("cameras");
  CHECK(cases.size() > 3);
  for (const Json& entry : cases) {
    const Camera actual = fitter_of(entry).camera(camera_of(entry.at("camera"))),
                 expected = camera_of(entry.at("fitted"));
    CHECK(actual.width == expected.width && actual.height == expected.height);
    check_numbers(actual.K, expected.K, 9);
    check_numbers(actual.world_to_camera, expected.world_to_camera, 12);
  }
}

void test_refusals_are_pythons() {
  for (const Json& entry : vectors("fit.json").at("refused"))
    CHECK_TEXT(first_line(refusal([&] { fitter_of(entry); })), first_line(entry.at("text")));
  const Json& wrong = vectors("fit.json").at("refused_camera");
  CHECK_TEXT(first_line(refusal([&] { fitter_of(wrong).camera(camera_of(wrong.at("camera"))); })),
             first_line(wrong.at("text")));
  try {
    fitter_of(wrong).camera(camera_of(wrong.at("camera")));
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == Code::kUsage);
  }
}

}  // namespace

int main() {
  test_images_are_pythons_bit_for_bit();
  test_formats_show_the_same_image();
  test_images_are_the_formulas();
  test_means_are_pythons();
  test_cameras_are_pythons();
  test_refusals_are_pythons();
}
