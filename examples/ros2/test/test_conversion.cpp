// Every conversion, without ROS and without the library.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "page4d/error.h"
#include "page4d_ros/conversion.h"

namespace page4d_ros {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// All lines of the Error that a call throws.
template <class F>
std::string refusal(const F& call) {
  try {
    call();
  } catch (const page4d::Error& error) {
    CHECK(error.code() == page4d::Code::kUsage);
    return error.what();
  }
  return "nothing is thrown";
}

void check_text(const std::string& actual, const std::string& expected) {
  if (actual == expected) return;
  std::fprintf(stderr, "--- actual\n%s\n--- expected\n%s\n", actual.c_str(), expected.c_str());
  std::exit(1);
}

ImageFields fields(const char* encoding, uint32_t width, uint32_t height, uint32_t step,
                   const std::vector<uint8_t>& data) {
  return {width, height, step, encoding, false, data.data(), data.size()};
}

void images() {
  const struct {
    const char* encoding;
    page4d::PixelFormat format;
    uint32_t bytes;
  } cases[] = {{"rgb8", page4d::PixelFormat::kRgb8, 3},
               {"bgr8", page4d::PixelFormat::kBgr8, 3},
               {"rgba8", page4d::PixelFormat::kRgba8, 4},
               {"bgra8", page4d::PixelFormat::kBgra8, 4},
               {"mono8", page4d::PixelFormat::kMono8, 1},
               {"yuyv", page4d::PixelFormat::kYuyv, 2},
               {"yuv422_yuy2", page4d::PixelFormat::kYuyv, 2},
               {"uyvy", page4d::PixelFormat::kUyvy, 2},
               {"yuv422", page4d::PixelFormat::kUyvy, 2},
               {"bayer_rggb8", page4d::PixelFormat::kBayerRggb8, 1},
               {"bayer_bggr8", page4d::PixelFormat::kBayerBggr8, 1},
               {"bayer_gbrg8", page4d::PixelFormat::kBayerGbrg8, 1},
               {"bayer_grbg8", page4d::PixelFormat::kBayerGrbg8, 1}};
  for (const auto& encoding : cases) {
    for (uint32_t padding : {0U, 1U, 13U}) {
      const uint32_t step = 5 * encoding.bytes + padding;
      const std::vector<uint8_t> data(size_t{step} * 4);
      for (bool bigendian : {false, true}) {
        ImageFields message = fields(encoding.encoding, 5, 4, step, data);
        message.is_bigendian = bigendian;
        const page4d::Image image = image_of(message);
        CHECK(image.data == data.data() && image.width == 5 && image.height == 4);
        CHECK(image.row_bytes() == step && image.format == encoding.format && image.memory == page4d::Memory::kHost);
      }
    }
    const std::vector<uint8_t> data(size_t{5} * encoding.bytes * 4);
    CHECK(refusal([&] {
            image_of(fields(encoding.encoding, 5, 4, 5 * encoding.bytes - 1, data));
          }).find("step is shorter than a row") != std::string::npos);
  }
}

void images_of_two_planes() {
  const std::vector<uint8_t> data(8 * 6);
  for (const char* encoding : {"nv12", "nv21"}) {
    const page4d::Image image = image_of(fields(encoding, 6, 4, 8, data));
    CHECK(image.data == data.data() && image.row_bytes() == 8 && image.chroma == nullptr && image.chroma_pitch == 0);
    const bool u_first = std::string(encoding) == "nv12";
    CHECK(image.format == (u_first ? page4d::PixelFormat::kNv12 : page4d::PixelFormat::kNv21));
    check_text(refusal([&] { image_of(fields(encoding, 6, 4, 9, data)); }),
               "an image's data end too early\n  got:     48 bytes\n  allowed: at least 54 bytes: 6 rows of 9");
  }
}

void refused_images() {
  const std::vector<uint8_t> data(60);
  const char* allowed =
      "\n  allowed: rgb8, bgr8, rgba8, bgra8, mono8, nv12, nv21, yuyv, uyvy, bayer_rggb8, bayer_bggr8, bayer_gbrg8, "
      "bayer_grbg8, yuv422_yuy2, yuv422";
  for (const char* encoding : {"16UC1", "bayer_rggb16", "RGB8", "rgb8 ", "nv24"})
    check_text(refusal([&] { image_of(fields(encoding, 5, 4, 15, data)); }),
               std::string("an image's encoding cannot be read\n  got:     ") + encoding + allowed);
  check_text(refusal([&] { image_of(fields("", 5, 4, 15, data)); }),
             std::string("an image's encoding cannot be read\n  got:     an empty string") + allowed);
  check_text(refusal([&] { image_of(fields("rgb8", 5, 4, 14, data)); }),
             "an image's step is shorter than a row\n  got:     14 bytes, rgb8 5x4\n  allowed: at least 15 bytes");
  check_text(refusal([&] { image_of(fields("rgb8", 5, 4, 16, data)); }),
             "an image's data end too early\n  got:     60 bytes\n  allowed: at least 64 bytes: 4 rows of 16");
  check_text(refusal([&] { image_of({5, 4, 15, "rgb8", false, nullptr, 60}); }),
             "an image's data end too early\n  got:     0 bytes\n  allowed: at least 60 bytes: 4 rows of 15");
  check_text(refusal([&] { image_of(fields("mono8", 0, 4, 15, data)); }),
             "an image has no pixels, or too many\n  got:     0x4\n  allowed: 1 to 2147483647 each");
  CHECK(refusal([&] { image_of(fields("mono8", 4, 0, 15, data)); }).find("4x0") != std::string::npos);
  CHECK(refusal([&] { image_of(fields("mono8", 0x80000000U, 1, 0x80000000U, data)); }).find("too many") !=
        std::string::npos);
  // products that do not fit 32 bits: 0x55555556 pixels of 3 bytes are 2 bytes, 65536 rows of 65536 bytes are none
  CHECK(refusal([&] { image_of(fields("rgb8", 0x55555556U, 1, 2, data)); }).find("step is shorter") !=
        std::string::npos);
  CHECK(refusal([&] { image_of(fields("mono8", 65536, 65536, 65536, data)); }).find("data end too early") !=
        std::string::npos);
}

void stamps() {
  for (int64_t nanoseconds :
       {int64_t{0}, int64_t{1}, int64_t{-1}, int64_t{999999999}, int64_t{-1000000000}, int64_t{1790000000123456789}}) {
    const Stamp stamp = stamp_of(nanoseconds);
    CHECK(stamp.nanosec < 1000000000U && nanoseconds_of(stamp) == nanoseconds);
  }
  CHECK(stamp_of(-1).sec == -1 && stamp_of(-1).nanosec == 999999999U);
  CHECK(nanoseconds_of({std::numeric_limits<int32_t>::max(), 999999999U}) == 2147483647999999999);
}

void depth_and_cameras() {
  const float depth[6] = {0.5F, 1000, std::nanf(""), 2, 3, -1};
  const GreyImage image = depth_image(depth, 2, 3);
  CHECK(image.width == 3 && image.height == 2 && image.step == 12 && image.encoding == std::string("32FC1"));
  CHECK(image.data.size() == sizeof depth && std::memcmp(image.data.data(), depth, sizeof depth) == 0);
  double K[9] = {500, 0, 35, 0, 400, 28, 0, 0, 1};
  const CameraModel model = camera_model_of(K);
  CHECK(model.valid && std::equal(K, K + 9, model.k.begin()) && model.r[0] == 1 && model.r[1] == 0);
  CHECK((model.p == std::array<double, 12>{500, 0, 35, 0, 0, 400, 28, 0, 0, 0, 1, 0}));
  for (const double broken : {kNaN, std::numeric_limits<double>::infinity()}) {
    K[4] = broken;
    CHECK(!camera_model_of(K).valid);
  }
}

page4d::Layout layout_of(int64_t H, int64_t W) {
  page4d::Layout layout;
  layout.H = H, layout.W = W;
  return layout;
}

// Engines of 28 x 56 pixels: patches in 2 rows and 4 columns.
void masks_of_the_cameras_size() {
  const page4d::Layout layout = layout_of(28, 56);
  const float mask[8] = {0.1F, 0.2F, 0.3F, 0.4F, 0.5F, 0.6F, 0.7F, 0.8F};
  const auto pixel = [&](const Region& region, uint32_t row, uint32_t column) {
    const GreyImage image = mask_image(mask, layout, region, MaskEncoding::k32FC1);
    CHECK(image.width == region.width && image.height == region.height && image.step == 4 * region.width);
    float value;
    std::memcpy(&value, image.data.data() + size_t{row} * image.step + 4 * column, sizeof(value));
    return value;
  };
  const Region twice = region_of(112, 56, layout, page4d::Fit::kNone);
  CHECK(pixel(twice, 0, 0) == 0.1F && pixel(twice, 27, 27) == 0.1F && pixel(twice, 27, 28) == 0.2F);
  CHECK(pixel(twice, 28, 28) == 0.6F && pixel(twice, 55, 111) == 0.8F);
  const Region own = region_of(0, 0, layout, page4d::Fit::kNone);
  CHECK(own.width == 56 && own.height == 28 && pixel(own, 13, 13) == 0.1F && pixel(own, 14, 14) == 0.6F);
  const Region cropped = region_of(112, 84, layout, page4d::Fit::kCrop);  // 14 rows above and below are cut off
  CHECK(pixel(cropped, 13, 0) == 0 && pixel(cropped, 14, 0) == 0.1F && pixel(cropped, 69, 111) == 0.8F);
  CHECK(pixel(cropped, 70, 111) == 0);
  const Region padded = region_of(56, 56, layout, page4d::Fit::kPad);  // half the width is black
  CHECK(pixel(padded, 0, 0) == 0.2F && pixel(padded, 55, 27) == 0.6F && pixel(padded, 55, 55) == 0.7F);
  const GreyImage bytes = mask_image(mask, layout, twice, MaskEncoding::kMono8);
  CHECK(bytes.step == 112 && bytes.data.size() == size_t{112} * 56 && bytes.data[0] == 26);
}

void calibration_that_was_given() {
  const page4d::Layout layout = layout_of(28, 56);
  CameraModel given;
  given.k = {100, 2, 55.5, 0, 90, 41.5, 0, 0, 1};  // the middle of 112 x 84 pixels, by their centres
  given.p = {100, 0, 55.5, -40, 0, 90, 41.5, 0, 0, 0, 1, 0};
  const CameraModel model = camera_model_of(given, region_of(112, 84, layout, page4d::Fit::kCrop));
  CHECK(model.valid);
  CHECK((model.k == std::array<double, 9>{50, 1, 27.5, 0, 45, 13.5, 0, 0, 1}));  // the middle of 56 x 28
  CHECK((model.p == std::array<double, 12>{50, 0, 27.5, -20, 0, 45, 13.5, 0, 0, 0, 1, 0}));
  CHECK(model.r == given.r);
  const CameraModel same = camera_model_of(given, region_of(56, 28, layout, page4d::Fit::kNone));
  CHECK(same.k == given.k && same.p == given.p);
  given.k = {};  // not calibrated
  CHECK(!camera_model_of(given, region_of(112, 84, layout, page4d::Fit::kCrop)).valid);
  given.k[0] = kNaN;
  CHECK(!camera_model_of(given, region_of(112, 84, layout, page4d::Fit::kCrop)).valid);
  CHECK(refusal([&] { region_of(112, 84, layout, page4d::Fit::kNone); }).find("aspect ratio") != std::string::npos);
}

void masks() {
  const float mask[6] = {0, 0.5F, 1, 0.2F, 1.5F, -3};
  GreyImage image = mask_image(mask, 2, 3, MaskEncoding::kMono8);
  CHECK(image.width == 3 && image.height == 2 && image.step == 3 && std::string(image.encoding) == "mono8");
  CHECK((image.data == std::vector<uint8_t>{0, 128, 255, 51, 255, 0}));
  const float odd[2] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  CHECK((mask_image(odd, 1, 2, MaskEncoding::kMono8).data == std::vector<uint8_t>{0, 255}));

  image = mask_image(mask, 2, 3, MaskEncoding::k32FC1);
  CHECK(image.width == 3 && image.height == 2 && image.step == 12 && std::string(image.encoding) == "32FC1" &&
        image.data.size() == 24);
  CHECK(std::memcmp(image.data.data(), mask, 24) == 0);
  uint32_t bits;
  std::memcpy(&bits, &mask[2], 4);  // 0x3F800000
  CHECK(image.is_bigendian == (image.data[8] == 0x3F));
}

// The rotation of a quaternion x, y, z, w of length 1, by the textbook formula.
void rebuild(const double* q, double* r) {
  const double x = q[0], y = q[1], z = q[2], w = q[3];
  const double rows[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z),     2 * (x * z + w * y),
                          2 * (x * y + w * z),     1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                          2 * (x * z - w * y),     2 * (y * z + w * x),     1 - 2 * (x * x + y * y)};
  std::memcpy(r, rows, sizeof(rows));
}

Pose pose_from(const double* r, double x, double y, double z) {
  const double matrix[16] = {r[0], r[1], r[2], x, r[3], r[4], r[5], y, r[6], r[7], r[8], z, 0, 0, 0, 1};
  return pose_of(matrix);
}

void check_orientation(const Pose& pose, double x, double y, double z, double w) {
  const double expected[4] = {x, y, z, w};
  CHECK(pose.valid);
  for (int i = 0; i < 4; ++i) CHECK(std::abs(pose.orientation[i] - expected[i]) < 1e-12);
}

void poses() {
  const double half = std::sqrt(0.5);
  const double identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  const Pose pose = pose_from(identity, 1, -2, 3e5);
  check_orientation(pose, 0, 0, 0, 1);
  CHECK(pose.position[0] == 1 && pose.position[1] == -2 && pose.position[2] == 3e5);
  const double x180[9] = {1, 0, 0, 0, -1, 0, 0, 0, -1}, y180[9] = {-1, 0, 0, 0, 1, 0, 0, 0, -1},
               z180[9] = {-1, 0, 0, 0, -1, 0, 0, 0, 1};
  check_orientation(pose_from(x180, 0, 0, 0), 1, 0, 0, 0);
  check_orientation(pose_from(y180, 0, 0, 0), 0, 1, 0, 0);
  check_orientation(pose_from(z180, 0, 0, 0), 0, 0, 1, 0);
  const double x90[9] = {1, 0, 0, 0, 0, -1, 0, 1, 0}, y90[9] = {0, 0, 1, 0, 1, 0, -1, 0, 0},
               z90[9] = {0, -1, 0, 1, 0, 0, 0, 0, 1};
  check_orientation(pose_from(x90, 0, 0, 0), half, 0, 0, half);
  check_orientation(pose_from(y90, 0, 0, 0), 0, half, 0, half);
  check_orientation(pose_from(z90, 0, 0, 0), 0, 0, half, half);

  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 4000; ++i) {
    double q[4], length = 0, r[9], back[9];
    // a quarter of them close to 180 degrees
    for (int axis = 0; axis < 4; ++axis) q[axis] = normal(random) * (i % 4 == 3 && axis == 3 ? 1e-9 : 1);
    for (double component : q) length += component * component;
    for (double& component : q) component /= std::sqrt(length);
    rebuild(q, r);
    const Pose pose = pose_from(r, 0, 0, 0);
    CHECK(pose.valid && pose.orientation[3] >= 0);
    double norm = 0;
    for (double component : pose.orientation) norm += component * component;
    CHECK(std::abs(norm - 1) < 1e-14);
    rebuild(pose.orientation, back);
    for (int entry = 0; entry < 9; ++entry) CHECK(std::abs(back[entry] - r[entry]) < 1e-12);
  }
  double blurred[9];  // as rounded to float32
  for (int i = 0; i < 9; ++i) blurred[i] = z90[i] * (1 + 1e-6);
  const Pose close = pose_from(blurred, 0, 0, 0);
  CHECK(close.valid && std::abs(std::hypot(close.orientation[2], close.orientation[3]) - 1) < 1e-14);
}

void poses_that_are_none() {
  const double good[16] = {1, 0, 0, 4, 0, 1, 0, 5, 0, 0, 1, 6, 0, 0, 0, 1};
  CHECK(pose_of(good).valid);
  for (double wrong : {kNaN, std::numeric_limits<double>::infinity()}) {
    for (int i = 0; i < 12; ++i) {
      double matrix[16];
      std::memcpy(matrix, good, sizeof(good));
      matrix[i] = wrong;
      const Pose pose = pose_of(matrix);
      CHECK(!pose.valid && pose.orientation[3] == 1 && pose.position[0] == 0);
    }
  }
  const double mirror[9] = {1, 0, 0, 0, 1, 0, 0, 0, -1}, nothing[9] = {};
  CHECK(!pose_from(mirror, 0, 0, 0).valid && !pose_from(nothing, 0, 0, 0).valid);
}

void parameters() {
  CHECK(backend_of("tensorrt") == page4d::Backend::kTensorrt && backend_of("test") == page4d::Backend::kTest);
  CHECK(backend_of("auto") == page4d::Backend::kAuto && backend_of("onnxruntime") == page4d::Backend::kOnnxruntime);
  CHECK(fit_of("none") == page4d::Fit::kNone && fit_of("stretch") == page4d::Fit::kStretch);
  CHECK(fit_of("crop") == page4d::Fit::kCrop && fit_of("pad") == page4d::Fit::kPad);
  CHECK(fit_of("published") == page4d::Fit::kPublished && fit_of("published-pad") == page4d::Fit::kPublishedPad);
  CHECK(missing_of("skip") == page4d::Missing::kSkip && missing_of("repeat") == page4d::Missing::kRepeat);
  CHECK(missing_of("absent") == page4d::Missing::kAbsent);
  CHECK(mask_encoding_of("mono8") == MaskEncoding::kMono8 && mask_encoding_of("32FC1") == MaskEncoding::k32FC1);
  check_text(refusal([] { backend_of("cuda"); }),
             "parameter backend is not known\n  got:     cuda\n  allowed: tensorrt, auto, onnxruntime, test");
  check_text(
      refusal([] { fit_of("Crop"); }),
      "parameter fit is not known\n  got:     Crop\n  allowed: none, stretch, crop, pad, published, published-pad");
  check_text(refusal([] { missing_of(""); }),
             "parameter missing is not known\n  got:     an empty string\n  allowed: skip, repeat, absent");
  CHECK(mask_size_of("image") == MaskSize::kImage && mask_size_of("patches") == MaskSize::kPatches);
  check_text(refusal([] { mask_size_of("full"); }),
             "parameter mask_size is not known\n  got:     full\n  allowed: image, patches");
  check_text(refusal([] { mask_encoding_of("mono16"); }),
             "parameter mask_encoding is not known\n  got:     mono16\n  allowed: mono8, 32FC1");

  CHECK(pixels_of(0, "frame_width") == 0 && pixels_of(1920, "frame_width") == 1920 &&
        pixels_of(2147483647, "frame_width") == 2147483647);
  check_text(refusal([] { pixels_of(-1, "frame_width"); }),
             "parameter frame_width is out of range\n  got:     -1\n  allowed: 0 to 2147483647");
  check_text(refusal([] { pixels_of(4294967296, "frame_height"); }),
             "parameter frame_height is out of range\n  got:     4294967296\n  allowed: 0 to 2147483647");
}

}  // namespace
}  // namespace page4d_ros

int main() {
  page4d_ros::images();
  page4d_ros::images_of_two_planes();
  page4d_ros::refused_images();
  page4d_ros::stamps();
  page4d_ros::masks();
  page4d_ros::masks_of_the_cameras_size();
  page4d_ros::calibration_that_was_given();
  page4d_ros::depth_and_cameras();
  page4d_ros::poses();
  page4d_ros::poses_that_are_none();
  page4d_ros::parameters();
  std::puts("all conversions are right");
  return 0;
}
