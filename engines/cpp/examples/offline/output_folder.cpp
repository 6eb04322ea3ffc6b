#include "output_folder.h"

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "page4d/error.h"
#include "text.h"

namespace offline {
namespace fs = std::filesystem;

namespace {

fs::path absolute_of(const fs::path& folder) { return path_text(fs::absolute(folder)); }

}  // namespace

void refuse_foreign(const fs::path& folder, const char* marker, const std::string& kind) {
  using page4d::Code;
  using page4d::Error;
  const bool taken = fs::is_regular_file(folder) || (fs::is_directory(folder) && !fs::is_empty(folder));
  if (taken && !fs::is_regular_file(folder / marker)) {
    throw Error(Code::kUsage, "-o names something that is not " + kind + ", and it would be replaced")
        .got(path_text(folder))
        .allowed("a new folder, an empty one, or " + kind);
  }
  const fs::path parent = absolute_of(folder).parent_path();
  if (!fs::is_directory(parent)) {
    throw Error(Code::kUsage, "-o lies in a folder that does not exist").got(path_text(folder)).hint("mkdir -p " + parent.string());
  }
}

StagedFolder::StagedFolder(const fs::path& target) : target_(absolute_of(target)) {
  std::string name = (target_.parent_path() / ("." + target_.filename().string() + "-XXXXXX")).string();
  if (::mkdtemp(name.data()) == nullptr) throw fs::filesystem_error("", name, std::error_code(errno, std::generic_category()));
  path_ = name;
}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  if (!done_) fs::remove_all(path_, ignored);
}

void StagedFolder::take_place() {
  fs::permissions(path_, fs::perms(0755));
  if (fs::exists(target_)) fs::remove_all(target_);
  fs::rename(path_, target_);
  done_ = true;
}

OutputFile::OutputFile(const fs::path& path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) fail();
}

OutputFile::~OutputFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void OutputFile::write(const void* data, size_t bytes) {
  if (bytes != 0 && std::fwrite(data, 1, bytes, file_) != bytes) fail();
}

void OutputFile::close() {
  std::FILE* file = file_;
  file_ = nullptr;
  if (std::fclose(file) != 0) fail();
}

void OutputFile::fail() const { throw fs::filesystem_error("", path_, std::error_code(errno, std::generic_category())); }

}  // namespace offline
