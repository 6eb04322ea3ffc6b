#include "page4d_ros/conversion.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "page4d/error.h"

namespace page4d_ros {
namespace {

using page4d::Code;
using page4d::Error;
using page4d::PixelFormat;

template <class T>
struct Choice {
  const char* name;
  T value;
};

template <class T, size_t N>
T value_of(const Choice<T> (&choices)[N], const std::string& name, const char* what) {
  std::string names;
  for (const Choice<T>& choice : choices) {
    if (name == choice.name) return choice.value;
    names += (names.empty() ? "" : ", ") + std::string(choice.name);
  }
  throw Error(Code::kUsage, what).got(name.empty() ? "an empty string" : name).allowed(names);
}

constexpr Choice<PixelFormat> kEncodings[] = {{"rgb8", PixelFormat::kRgb8},
                                              {"bgr8", PixelFormat::kBgr8},
                                              {"rgba8", PixelFormat::kRgba8},
                                              {"bgra8", PixelFormat::kBgra8},
                                              {"mono8", PixelFormat::kMono8},
                                              {"nv12", PixelFormat::kNv12},
                                              {"nv21", PixelFormat::kNv21},
                                              {"yuyv", PixelFormat::kYuyv},
                                              {"uyvy", PixelFormat::kUyvy},
                                              {"bayer_rggb8", PixelFormat::kBayerRggb8},
                                              {"bayer_bggr8", PixelFormat::kBayerBggr8},
                                              {"bayer_gbrg8", PixelFormat::kBayerGbrg8},
                                              {"bayer_grbg8", PixelFormat::kBayerGrbg8},
                                              {"yuv422_yuy2", PixelFormat::kYuyv},  // older names
                                              {"yuv422", PixelFormat::kUyvy}};
constexpr Choice<page4d::Backend> kBackends[] = {{"tensorrt", page4d::Backend::kTensorrt},
                                                 {"auto", page4d::Backend::kAuto},
                                                 {"onnxruntime", page4d::Backend::kOnnxruntime},
                                                 {"test", page4d::Backend::kTest}};
constexpr Choice<page4d::Fit> kFits[] = {
    {"none", page4d::Fit::kNone},           {"stretch", page4d::Fit::kStretch},
    {"crop", page4d::Fit::kCrop},           {"pad", page4d::Fit::kPad},
    {"published", page4d::Fit::kPublished}, {"published-pad", page4d::Fit::kPublishedPad}};
constexpr Choice<page4d::Missing> kMissings[] = {
    {"skip", page4d::Missing::kSkip}, {"repeat", page4d::Missing::kRepeat}, {"absent", page4d::Missing::kAbsent}};
constexpr Choice<MaskEncoding> kMaskEncodings[] = {{"mono8", MaskEncoding::kMono8}, {"32FC1", MaskEncoding::k32FC1}};
constexpr Choice<MaskSize> kMaskSizes[] = {{"image", MaskSize::kImage}, {"patches", MaskSize::kPatches}};

uint8_t byte_of(float probability) {
  if (!(probability > 0)) return 0;  // also for NaN
  return static_cast<uint8_t>(std::lround(std::min(probability, 1.0F) * 255));
}

// For each pixel of a side of the camera's image the patch that its middle lies in; -1: outside what the engines saw.
std::vector<int64_t> patches_of(uint32_t pixels, double scale, double shift, int low, int high, int64_t patches,
                                int64_t side) {
  std::vector<int64_t> chosen(pixels, -1);
  for (uint32_t pixel = 0; pixel < pixels; ++pixel) {
    const double place = scale * (pixel + 0.5) + shift;
    if (place >= std::max(low, 0) && place < static_cast<double>(std::min<int64_t>(high, side)))
      chosen[pixel] = static_cast<int64_t>(place * static_cast<double>(patches) / static_cast<double>(side));
  }
  return chosen;
}

}  // namespace

bool machine_is_bigendian() {
  const uint16_t number = 1;
  uint8_t first;
  std::memcpy(&first, &number, 1);
  return first == 0;
}

Region region_of(int width, int height, const page4d::Layout& layout, page4d::Fit fit) {
  const int source_width = width > 0 ? width : static_cast<int>(layout.W);
  const int source_height = height > 0 ? height : static_cast<int>(layout.H);
  const page4d::ImageFit image_fit(source_width, source_height, layout, fit);
  Region region;
  region.width = static_cast<uint32_t>(source_width);
  region.height = static_cast<uint32_t>(source_height);
  int target_width = 0, target_height = 0;
  image_fit.target(region.left, region.top, target_width, target_height);
  region.right = region.left + target_width;
  region.bottom = region.top + target_height;
  image_fit.scale_shift(region.scale, region.shift);
  return region;
}

page4d::Image image_of(const ImageFields& fields) {
  const PixelFormat format = value_of(kEncodings, fields.encoding, "an image's encoding cannot be read");
  const std::string size = std::to_string(fields.width) + "x" + std::to_string(fields.height);
  constexpr uint32_t kMost = std::numeric_limits<int>::max();
  if (fields.width == 0 || fields.height == 0 || fields.width > kMost || fields.height > kMost)
    throw Error(Code::kUsage, "an image has no pixels, or too many")
        .got(size)
        .allowed("1 to " + std::to_string(kMost) + " each");
  const uint64_t row = uint64_t{fields.width} * static_cast<uint64_t>(page4d::bytes_per_pixel(format));
  if (fields.step < row)
    throw Error(Code::kUsage, "an image's step is shorter than a row")
        .got(std::to_string(fields.step) + " bytes, " + fields.encoding + " " + size)
        .allowed("at least " + std::to_string(row) + " bytes");
  const bool has_chroma = format == PixelFormat::kNv12 || format == PixelFormat::kNv21;
  const uint64_t rows = uint64_t{fields.height} + (has_chroma ? fields.height / 2 : 0);
  const uint64_t bytes = fields.step * rows;
  if (fields.data == nullptr || fields.size < bytes)
    throw Error(Code::kUsage, "an image's data end too early")
        .got(std::to_string(fields.data == nullptr ? 0 : fields.size) + " bytes")
        .allowed("at least " + std::to_string(bytes) + " bytes: " + std::to_string(rows) + " rows of " +
                 std::to_string(fields.step));
  page4d::Image image;
  image.data = fields.data;
  image.width = static_cast<int>(fields.width);
  image.height = static_cast<int>(fields.height);
  image.pitch = fields.step;
  image.format = format;
  return image;
}

Stamp stamp_of(int64_t nanoseconds) {
  int64_t sec = nanoseconds / kNanoseconds, rest = nanoseconds % kNanoseconds;
  if (rest < 0) {  // nanosec is never negative
    rest += kNanoseconds;
    --sec;
  }
  return {static_cast<int32_t>(sec), static_cast<uint32_t>(rest)};
}

GreyImage mask_image(const float* mask, int64_t h, int64_t w, MaskEncoding encoding) {
  const size_t count = static_cast<size_t>(h) * static_cast<size_t>(w);
  const bool bytes = encoding == MaskEncoding::kMono8;
  GreyImage image;
  image.width = static_cast<uint32_t>(w);
  image.height = static_cast<uint32_t>(h);
  image.step = static_cast<uint32_t>(static_cast<size_t>(w) * (bytes ? 1 : sizeof(float)));
  image.encoding = bytes ? "mono8" : "32FC1";
  image.is_bigendian = machine_is_bigendian();
  image.data.resize(size_t{image.step} * image.height);
  if (bytes)
    std::transform(mask, mask + count, image.data.begin(), byte_of);
  else if (count != 0)
    std::memcpy(image.data.data(), mask, count * sizeof(float));
  return image;
}

GreyImage mask_image(const float* mask, const page4d::Layout& layout, const Region& region, MaskEncoding encoding) {
  const std::vector<int64_t> columns =
      patches_of(region.width, region.scale[0], region.shift[0], region.left, region.right, layout.w(), layout.W);
  const std::vector<int64_t> rows =
      patches_of(region.height, region.scale[1], region.shift[1], region.top, region.bottom, layout.h(), layout.H);
  std::vector<float> pixels(size_t{region.width} * region.height);
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t column = 0; column < columns.size() && rows[row] >= 0; ++column) {
      if (columns[column] >= 0) pixels[row * columns.size() + column] = mask[rows[row] * layout.w() + columns[column]];
    }
  }
  return mask_image(pixels.data(), region.height, region.width, encoding);
}

GreyImage depth_image(const float* depth, int64_t H, int64_t W) {
  return mask_image(depth, H, W, MaskEncoding::k32FC1);
}

CameraModel camera_model_of(const double* K) {
  CameraModel model;
  model.valid = std::all_of(K, K + 9, [](double number) { return std::isfinite(number); });
  std::copy(K, K + 9, model.k.begin());
  for (size_t row = 0; row < 3; ++row) std::copy(K + 3 * row, K + 3 * row + 3, model.p.begin() + 4 * row);
  return model;
}

CameraModel camera_model_of(const CameraModel& given, const Region& region) {
  CameraModel model = given;
  // from centre to edge, into the engines' image, back to the centre
  const double shift[2] = {region.scale[0] * 0.5 + region.shift[0] - 0.5,
                           region.scale[1] * 0.5 + region.shift[1] - 0.5};
  for (size_t row = 0; row < 2; ++row) {
    for (size_t column = 0; column < 3; ++column)
      model.k[3 * row + column] = region.scale[row] * given.k[3 * row + column] + shift[row] * given.k[6 + column];
    for (size_t column = 0; column < 4; ++column)
      model.p[4 * row + column] = region.scale[row] * given.p[4 * row + column] + shift[row] * given.p[8 + column];
  }
  const auto finite = [](double number) { return std::isfinite(number); };
  model.valid = given.k[0] > 0 && std::all_of(model.k.begin(), model.k.end(), finite) &&
                std::all_of(model.p.begin(), model.p.end(), finite);
  return model;
}

Pose pose_of(const double* matrix) {
  Pose pose;
  if (!std::all_of(matrix, matrix + 12, [](double number) { return std::isfinite(number); })) return pose;
  const auto r = [&](int row, int column) { return matrix[4 * row + column]; };
  const double determinant = r(0, 0) * (r(1, 1) * r(2, 2) - r(1, 2) * r(2, 1)) -
                             r(0, 1) * (r(1, 0) * r(2, 2) - r(1, 2) * r(2, 0)) +
                             r(0, 2) * (r(1, 0) * r(2, 1) - r(1, 1) * r(2, 0));
  if (!(determinant > 0)) return pose;
  // the quaternion times four times its largest component, so that nothing cancels
  const double trace = r(0, 0) + r(1, 1) + r(2, 2);
  double q[4];
  if (trace >= std::max({r(0, 0), r(1, 1), r(2, 2)})) {
    q[0] = r(2, 1) - r(1, 2);
    q[1] = r(0, 2) - r(2, 0);
    q[2] = r(1, 0) - r(0, 1);
    q[3] = 1 + trace;
  } else {
    const int i = r(0, 0) >= r(1, 1) && r(0, 0) >= r(2, 2) ? 0 : r(1, 1) >= r(2, 2) ? 1 : 2;
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    q[i] = 1 + r(i, i) - r(j, j) - r(k, k);
    q[j] = r(j, i) + r(i, j);
    q[k] = r(k, i) + r(i, k);
    q[3] = r(k, j) - r(j, k);
  }
  const double length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  if (!(length > 0) || !std::isfinite(length)) return pose;
  for (int i = 0; i < 4; ++i) pose.orientation[i] = (q[3] < 0 ? -q[i] : q[i]) / length;
  for (int i = 0; i < 3; ++i) pose.position[i] = r(i, 3);
  pose.valid = true;
  return pose;
}

page4d::Backend backend_of(const std::string& name) {
  return value_of(kBackends, name, "parameter backend is not known");
}
page4d::Fit fit_of(const std::string& name) { return value_of(kFits, name, "parameter fit is not known"); }
page4d::Missing missing_of(const std::string& name) {
  return value_of(kMissings, name, "parameter missing is not known");
}
MaskEncoding mask_encoding_of(const std::string& name) {
  return value_of(kMaskEncodings, name, "parameter mask_encoding is not known");
}
MaskSize mask_size_of(const std::string& name) {
  return value_of(kMaskSizes, name, "parameter mask_size is not known");
}

int pixels_of(int64_t value, const std::string& parameter) {
  constexpr int kMost = std::numeric_limits<int>::max();
  if (value < 0 || value > kMost)
    throw Error(Code::kUsage, "parameter " + parameter + " is out of range")
        .got(std::to_string(value))
        .allowed("0 to " + std::to_string(kMost));
  return static_cast<int>(value);
}

}  // namespace page4d_ros
