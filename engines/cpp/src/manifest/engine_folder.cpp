#include "manifest/engine_folder.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <new>
#include <set>
#include <thread>

#include "files/folder_file.h"
#include "files/sha256.h"
#include "manifest/manifest_file.h"
#include "text.h"

namespace page4d {
namespace {

namespace fs = std::filesystem;

// Names of the files that a runtime loads.
std::set<std::string> used_of(const Manifest& manifest) {
  std::set<std::string> used{kConstants, kPlugins};
  if (!manifest.plans) return used;
  for (const auto& plan : manifest.plans->files) used.insert(plan.second);
  return used;
}

// Up to count - 1 more threads, fewer if the system refuses them. The destructor joins them.
class Workers {
 public:
  template <class Work>
  Workers(const Work& work, size_t count) {
    try {
      threads_.reserve(count);
      while (threads_.size() + 1 < count) threads_.emplace_back(work);
    } catch (const std::exception&) {  // too many threads, or no memory for another: those that started do the work
    }
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() {
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::vector<std::thread> threads_;
};

// The files' hashes, empty if a file cannot be read. On several threads: a folder may hold gigabytes.
std::vector<std::string> hashes_of(const std::vector<std::string>& paths) {
  std::vector<std::string> digests(paths.size());
  std::atomic<size_t> next{0};
  std::atomic<bool> out_of_memory{false};
  const auto work = [&] {
    for (size_t i = next++; i < paths.size(); i = next++) {
      try {
        digests[i] = sha256_of(paths[i]);
      } catch (const std::bad_alloc&) {
        out_of_memory = true;
      } catch (const std::exception&) {  // stays empty
      }
    }
  };
  {
    const Workers workers(work, std::min<size_t>(std::max(1u, std::thread::hardware_concurrency()), paths.size()));
    work();
  }
  if (out_of_memory) throw std::bad_alloc();
  return digests;
}

}  // namespace

std::string EngineFolder::file(const std::string& name) const { return (fs::path(path) / name).string(); }

EngineFolder EngineFolder::open(const std::string& path, Files files) {
  EngineFolder folder{path, read_manifest(path)};
  const Manifest& manifest = folder.manifest;
  const std::set<std::string> used = used_of(manifest);
  std::vector<std::string> names;
  for (const auto& [name, hash] : manifest.files)
    if (files == Files::kAll || used.count(name) != 0) names.push_back(name);
  folder.check(names);
  return folder;
}

void EngineFolder::check(const std::vector<std::string>& names) const {
  std::vector<std::string> paths;
  for (const std::string& name : names) paths.push_back(path_inside(path, name));
  const std::vector<std::string> hashes = hashes_of(paths);
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& expected = manifest.files.at(names[i]);
    if (hashes[i] == expected) continue;
    if (hashes[i].empty()) throw Error(Code::kIncompatible, text(names[i], " cannot be read")).got(paths[i]);
    std::error_code failed;
    const auto size = fs::file_size(paths[i], failed);
    throw Error(Code::kIncompatible, text(names[i], " is not the file that was exported: it was changed or cut short"))
        .got(text("sha256 ", hashes[i].substr(0, 12), ".. (", size, " bytes)"))
        .allowed(text("sha256 ", expected.substr(0, 12), ".."))
        .hint("copy the folder again, or page4d-export again");
  }
}

}  // namespace page4d
