#include "files/folder_file.h"

#include <algorithm>
#include <filesystem>

#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

namespace fs = std::filesystem;

constexpr char kCopy[] = "copy the folder whole, or page4d-export again";

const char* kind_of(fs::file_type type) {
  switch (type) {
    case fs::file_type::directory:
      return "a folder";
    case fs::file_type::fifo:
      return "a FIFO";
    case fs::file_type::socket:
      return "a socket";
    case fs::file_type::character:
    case fs::file_type::block:
      return "a device";
    default:
      return "no regular file";
  }
}

}  // namespace

std::string path_inside(const std::string& folder, const std::string& name) {
  const fs::path path = fs::path(folder) / name;
  std::error_code failed;
  const fs::path real = fs::canonical(path, failed);
  if (failed == std::errc::no_such_file_or_directory || failed == std::errc::not_a_directory) {
    throw Error(Code::kIncompatible, text("the engine folder lacks ", name)).got(folder).hint(kCopy);
  }
  const auto require = [&] {
    if (failed)
      throw Error(Code::kIncompatible, text(name, " cannot be read: ", failed.message()))
          .got(path.string())
          .hint(kCopy);
  };
  require();
  const fs::path root = fs::canonical(folder, failed);
  require();
  if (std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first != root.end()) {
    throw Error(Code::kIncompatible, text(name, " leads out of the engine folder"))
        .got(real.string())
        .allowed("links to what is inside")
        .hint("copy the folder with the files that its links lead to: cp -rL");
  }
  const fs::file_type type = fs::status(real, failed).type();
  require();
  if (type != fs::file_type::regular)
    throw Error(Code::kIncompatible, text(name, " is ", kind_of(type)))
        .got(path.string())
        .allowed("a file")
        .hint(kCopy);
  return path.string();
}

}  // namespace page4d
