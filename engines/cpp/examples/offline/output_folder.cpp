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

void refuse_taken(const fs::path& folder) {
  using page4d::Code;
  using page4d::Error;
  const char* allowed = "a new folder, or an empty one";
  if (fs::exists(folder) && !fs::is_directory(folder))
    throw Error(Code::kUsage, "-o is not a folder").got(path_text(folder)).allowed(allowed);
  if (fs::is_directory(folder) && !fs::is_empty(folder))
    throw Error(Code::kUsage, "-o is not empty").got(path_text(folder)).allowed(allowed);
  const fs::path parent = absolute_of(folder).parent_path();
  if (!fs::is_directory(parent)) {
    throw Error(Code::kUsage, "-o lies in a folder that does not exist")
        .got(path_text(folder))
        .hint("mkdir -p " + parent.string());
  }
}

StagedFolder::StagedFolder(const fs::path& target) : target_(absolute_of(target)) {
  std::string name = (target_.parent_path() / ("." + target_.filename().string() + "-XXXXXX")).string();
  if (::mkdtemp(name.data()) == nullptr)
    throw fs::filesystem_error("", name, std::error_code(errno, std::generic_category()));
  path_ = name;
}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  if (!done_) fs::remove_all(path_, ignored);
}

void StagedFolder::take_place() {
  fs::permissions(path_, fs::perms(0755));
  fs::rename(path_, target_);  // fails where the target is no longer empty
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

void OutputFile::fail() const {
  throw fs::filesystem_error("", path_, std::error_code(errno, std::generic_category()));
}

}  // namespace offline
