#include "constants.h"

#include <Eigen/Core>
#include <cstring>

#include "files.h"
#include "json_reader.h"
#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

[[noreturn]] void damaged(const std::string& path, const std::string& reason) {
  throw Error(Code::kIncompatible, text("the constants' file is damaged: ", reason)).got(path).hint("page4d-export again");
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

std::vector<float> tensor_of(const JsonValue& value, const std::string& data) {
  std::string dtype;
  std::vector<int64_t> offsets;
  value.fields({{"dtype", true, [&](const JsonValue& v) { dtype = v.string(); }},
                {"shape", true, [](const JsonValue& v) { v.array(); }},
                {"data_offsets", true, [&](const JsonValue& v) {
                   for (const JsonValue& offset : v.array()) offsets.push_back(offset.integer());
                 }}});
  const auto size = static_cast<int64_t>(data.size());
  if (dtype != "F32") throw JsonError("a constant has another type than F32: " + dtype);
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > size || (offsets[1] - offsets[0]) % 4 != 0) {
    throw JsonError("a constant lies outside of the file");
  }
  std::vector<float> values(static_cast<size_t>(offsets[1] - offsets[0]) / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), data.data() + offsets[0], values.size() * sizeof(float));
  return values;
}

}  // namespace

std::map<std::string, std::vector<float>> read_constants(const std::string& path) {
  const std::optional<std::string> file = read_file(path);
  if (!file) throw Error(Code::kIncompatible, "the engine folder has no constants").got(path).hint("page4d-export again");
  const std::string& content = *file;
  uint64_t length = 0;
  if (content.size() < 8) damaged(path, "it is cut short");
  std::memcpy(&length, content.data(), 8);  // little-endian, as all machines that this runs on
  if (length > content.size() - 8) damaged(path, "it is cut short");
  try {
    const JsonDocument header(content.substr(8, length));
    const std::string data = content.substr(8 + length);
    std::map<std::string, std::vector<float>> found;
    for (const auto& [name, value] : header.root().items()) {
      if (name != "__metadata__") found[name] = tensor_of(value, data);
    }
    return found;
  } catch (const JsonError& error) {
    damaged(path, error.what());
  }
}

Bytes converted(const std::vector<float>& values, DType dtype) {
  switch (dtype) {
    case DType::kFloat16: return rounded<Eigen::half>(values);
    case DType::kBfloat16: return rounded<Eigen::bfloat16>(values);
    default: return rounded<float>(values);
  }
}

}  // namespace page4d
