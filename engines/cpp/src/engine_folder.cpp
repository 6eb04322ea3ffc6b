#include "engine_folder.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <ios>
#include <thread>

#include "sha256.h"
#include "text.h"

namespace page4d {
namespace {

namespace fs = std::filesystem;

bool is_outside(const std::string& name) {
  const fs::path path(name);
  return path.is_absolute() || std::find(path.begin(), path.end(), "..") != path.end();
}

bool is_used(const Manifest& manifest, const std::string& name) {
  if (name == kConstants || fs::path(name).parent_path() == "plugins") return true;
  if (!manifest.plans) return false;
  return std::any_of(manifest.plans->files.begin(), manifest.plans->files.end(), [&](const auto& plan) { return plan.second == name; });
}

// The files' hashes, empty where a file cannot be read. Side by side: a folder may hold gigabytes.
std::vector<std::string> hashes_of(const std::vector<std::string>& paths) {
  std::vector<std::string> found(paths.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < paths.size(); i = next++) {
      try {
        found[i] = sha256_of(paths[i]);
      } catch (const std::ios_base::failure&) {  // stays empty
      }
    }
  };
  std::vector<std::thread> workers;
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  for (size_t i = 1; i < std::min(processors, paths.size()); ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
  return found;
}

}  // namespace

std::string EngineFolder::file(const std::string& name) const { return (fs::path(path) / name).string(); }

EngineFolder EngineFolder::open(const std::string& path, Files files) {
  EngineFolder folder{path, read_manifest(path)};
  const Manifest& manifest = folder.manifest;
  std::vector<std::string> names, paths;
  for (const auto& [name, hash] : manifest.files) {
    if (is_outside(name)) {
      throw Error(Code::kIncompatible, "manifest.json names a file outside the engine folder").got(name).allowed("relative paths inside it");
    }
    if (files == Files::kUsed && !is_used(manifest, name)) continue;
    names.push_back(name);
    paths.push_back(folder.file(name));
  }
  const std::vector<std::string> hashes = hashes_of(paths);
  for (size_t i = 0; i < names.size(); ++i) {
    std::error_code failed;
    if (!fs::is_regular_file(paths[i], failed)) {
      throw Error(Code::kIncompatible, text("the engine folder lacks ", names[i])).got(path).hint("copy the folder whole, or page4d-export again");
    }
    const std::string& expected = manifest.files.at(names[i]);
    if (hashes[i] == expected) continue;
    if (hashes[i].empty()) throw Error(Code::kFailure, text(names[i], " cannot be read")).got(paths[i]);
    const auto size = fs::file_size(paths[i], failed);
    throw Error(Code::kIncompatible, text(names[i], " is not the file that was exported: it was changed or cut short"))
        .got(text("sha256 ", hashes[i].substr(0, 12), ".. (", size, " bytes)"))
        .allowed(text("sha256 ", expected.substr(0, 12), ".."))
        .hint("copy the folder again, or page4d-export again");
  }
  std::vector<std::string> unlisted;
  for (const Stage& stage : manifest.stages) {
    if (!stage.file || manifest.files.count(*stage.file) == 0) unlisted.push_back(stage.name);
  }
  if (manifest.plans) {
    for (const auto& [stage, plan] : manifest.plans->files) {
      if (manifest.files.count(plan) == 0) unlisted.push_back(stage);
    }
  }
  if (!unlisted.empty()) throw Error(Code::kIncompatible, "manifest.json lists stages without a file").got(joined(unlisted)).hint("page4d-export again");
  return folder;
}

}  // namespace page4d
