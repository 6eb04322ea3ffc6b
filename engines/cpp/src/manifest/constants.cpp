#include "manifest/constants.h"

#include <Eigen/Core>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "files/files.h"
#include "files/folder_file.h"
#include "files/json_reader.h"
#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

constexpr size_t kLargestHeader = size_t{1} << 20;  // bytes

[[noreturn]] void damaged(const std::string& path, const std::string& reason) {
  throw Error(Code::kIncompatible, text("the constants' file is damaged: ", reason))
      .got(path)
      .hint("page4d-export again");
}

template <class T>
Bytes rounded(const std::vector<float>& values) {
  Bytes bytes(values.size() * sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    const T number(values[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &number, sizeof(T));
  }
  return bytes;
}

struct Constant {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

Constant tensor_of(const JsonValue& value, const std::string& data) {
  std::string dtype;
  std::vector<int64_t> offsets;
  Constant constant;
  value.fields({{"dtype", true, [&](const JsonValue& v) { dtype = v.string(); }},
                {"shape", true, [&](const JsonValue& v) { constant.shape = v.integers(); }},
                {"data_offsets", true, [&](const JsonValue& v) { offsets = v.integers(); }}});
  const auto size = static_cast<int64_t>(data.size());
  if (dtype != "F32") throw JsonError("a constant has another type than F32: " + dtype);
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > size ||
      (offsets[1] - offsets[0]) % 4 != 0) {
    throw JsonError("a constant lies outside of the file");
  }
  constant.values.resize(static_cast<size_t>(offsets[1] - offsets[0]) / sizeof(float));
  if (!constant.values.empty())
    std::memcpy(constant.values.data(), data.data() + offsets[0], constant.values.size() * sizeof(float));
  return constant;
}

std::map<std::string, Constant> read(const std::string& path, size_t most) {
  const std::optional<std::string> file = read_file(path, most);
  if (!file && errno == EFBIG) damaged(path, text("it has more than ", most, " bytes"));
  if (!file)
    throw Error(Code::kIncompatible, "the engine folder has no constants").got(path).hint("page4d-export again");
  const std::string& content = *file;
  uint64_t length = 0;
  if (content.size() < 8) damaged(path, "it is cut short");
  std::memcpy(&length, content.data(), 8);  // little-endian, as is every machine that this runs on
  if (length > content.size() - 8) damaged(path, "it is cut short");
  try {
    const JsonDocument header(content.substr(8, length));
    const std::string data = content.substr(8 + length);
    std::map<std::string, Constant> constants;
    size_t left = data.size() / sizeof(float);
    for (const auto& [name, value] : header.root().items()) {
      if (name == "__metadata__") continue;
      Constant constant = tensor_of(value, data);
      if (constant.values.size() > left) throw JsonError("constants lie over one another");
      left -= constant.values.size();
      constants[name] = std::move(constant);
    }
    return constants;
  } catch (const JsonError& error) {
    damaged(path, error.what());
  }
}

// Shapes of the constants by name, each over all calls of the stage that reads it.
std::map<std::string, std::vector<int64_t>> shapes_of(const Manifest& manifest) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const std::string& name : manifest.constants()) {
    const auto reader = std::find_if(manifest.stages.begin(), manifest.stages.end(),
                                     [&](const Stage& stage) { return stage.input(name) != nullptr; });
    shapes[name] = reader->input(name)->shape;
    shapes[name].front() *= reader->calls;
  }
  return shapes;
}

}  // namespace

std::map<std::string, std::vector<float>> read_constants(const std::string& path) {
  std::map<std::string, std::vector<float>> values;
  for (auto& [name, constant] : read(path, SIZE_MAX)) values[name] = std::move(constant.values);
  return values;
}

std::map<std::string, std::vector<float>> read_constants(const EngineFolder& folder) {
  const auto shapes = shapes_of(folder.manifest);
  if (shapes.empty()) return {};  // the file need not be there
  size_t most = kLargestHeader;
  std::vector<std::string> expected, present;
  for (const auto& [name, shape] : shapes) {
    most += static_cast<size_t>(count_of(shape)) * sizeof(float);
    expected.push_back(name);
  }
  auto constants = read(path_inside(folder.path, kConstants), most);
  for (const auto& constant : constants) present.push_back(constant.first);
  const auto refuse = [](const std::string& what, const std::string& got, const std::string& allowed) {
    throw Error(Code::kIncompatible, what + " is not as the engines need it")
        .got(got)
        .allowed(allowed)
        .hint("page4d-export again");
  };
  if (present != expected) refuse(kConstants, present.empty() ? "no tensors" : joined(present), joined(expected));
  std::map<std::string, std::vector<float>> values;
  for (const auto& [name, shape] : shapes) {
    Constant& constant = constants.at(name);
    const std::string what = text(name, " in ", kConstants);
    if (constant.shape != shape || static_cast<int64_t>(constant.values.size()) != count_of(shape)) {
      refuse(what, text("float32 ", text_of(constant.shape)), text("float32 ", text_of(shape)));
    }
    const bool finite =
        std::all_of(constant.values.begin(), constant.values.end(), [](float value) { return std::isfinite(value); });
    if (!finite) refuse(what, "NaN or infinity", "finite numbers");
    values[name] = std::move(constant.values);
  }
  return values;
}

Bytes converted(const std::vector<float>& values, DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return rounded<Eigen::half>(values);
    case DType::kBfloat16:
      return rounded<Eigen::bfloat16>(values);
    default:
      return rounded<float>(values);
  }
}

}  // namespace page4d
