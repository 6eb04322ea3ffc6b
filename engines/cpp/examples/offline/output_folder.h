// A folder that appears whole or not at all, and the files in it.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace offline {

// Throws page4d::Error kUsage unless `-o folder` is free to be written: not there, or empty.
void refuse_taken(const std::filesystem::path& folder);

// A folder beside another one, whose place it takes when it is done; without that, nothing of it is left.
class StagedFolder {
 public:
  explicit StagedFolder(const std::filesystem::path& target);
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;
  ~StagedFolder();

  const std::filesystem::path& path() const { return path_; }
  void take_place();

 private:
  std::filesystem::path target_, path_;
  bool done_ = false;
};

// Methods throw std::filesystem::filesystem_error.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  void write(const void* data, size_t bytes);
  // Reports what the disk refused only now.
  void close();

 private:
  [[noreturn]] void fail() const;

  std::filesystem::path path_;
  std::FILE* file_;
};

template <class Content>
void write_file(const std::filesystem::path& path, const Content& content) {
  OutputFile file(path);
  file.write(content.data(), content.size());
  file.close();
}

}  // namespace offline
