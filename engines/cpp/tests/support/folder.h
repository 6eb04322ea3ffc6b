// Engine folders of the golden plans: a manifest, constants, and files in place of the engines, which the test backend
// does not read.
#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>

#include "files/sha256.h"
#include "manifest/constants.h"
#include "manifest/manifest_file.h"
#include "support/check.h"
#include "support/vectors.h"

namespace page4d {

inline void write_file(const std::filesystem::path& path, const std::string& content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string hash_of(const std::string& content) {
  Sha256 hash;
  hash.add(content.data(), content.size());
  return hash.digest();
}

// The stage that reads a constant first.
inline const Stage& reader_of(const Manifest& manifest, const std::string& name) {
  for (const Stage& stage : manifest.stages) {
    if (stage.input(name) != nullptr) return stage;
  }
  CHECK(false);
  std::abort();
}

// The shapes of the engines' constants, over all calls of the stage that reads them.
inline std::map<std::string, std::vector<int64_t>> constant_shapes(const Manifest& manifest) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const std::string& name : manifest.constants()) {
    const Stage& reader = reader_of(manifest, name);
    shapes[name] = reader.input(name)->shape;
    shapes[name].front() *= reader.calls;
  }
  return shapes;
}

// The engines' constants: values that are exact in all types.
inline std::map<std::string, std::vector<float>> constants_of(const Manifest& manifest) {
  std::map<std::string, std::vector<float>> constants;
  for (const auto& [name, shape] : constant_shapes(manifest)) {
    for (int64_t i = 0; i < count_of(shape); ++i) constants[name].push_back(static_cast<float>(i % 251) / 128);
  }
  return constants;
}

// shapes: of the tensors by name; a tensor without a shape has one axis.
inline std::string safetensors(const std::map<std::string, std::vector<float>>& tensors,
                               const std::map<std::string, std::vector<int64_t>>& shapes = {}) {
  nlohmann::ordered_json header;
  std::string data;
  for (const auto& [name, values] : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    const auto shape = shapes.find(name);
    const std::vector<int64_t> flat{static_cast<int64_t>(values.size())};
    header[name] = {{"dtype", "F32"},
                    {"shape", shape == shapes.end() ? flat : shape->second},
                    {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

// The golden plan whose name starts with `begin`.
inline nlohmann::ordered_json plan_named(const std::string& begin) {
  const nlohmann::ordered_json all = vectors("plans.json");
  for (const auto& plan : all["plans"]) {
    if (plan["name"].get<std::string>().rfind(begin, 0) == 0) return plan["manifest"];
  }
  std::fprintf(stderr, "no plan %s\n", begin.c_str());
  std::exit(1);
}

inline void write_folder(const std::filesystem::path& folder, nlohmann::ordered_json manifest) {
  std::filesystem::remove_all(folder);
  const Manifest parsed = parse_manifest(manifest.dump(), "");
  const std::string constants = safetensors(constants_of(parsed), constant_shapes(parsed));
  for (auto& [name, hash] : manifest["files"].items()) {
    const std::string content = name == kConstants ? constants : "engine " + name;
    write_file(folder / name, content);
    hash = hash_of(content);
  }
  write_file(folder / "manifest.json", manifest.dump());
}

}  // namespace page4d
