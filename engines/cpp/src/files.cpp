#include "files.h"

#include <cerrno>
#include <cstdio>
#include <memory>

namespace page4d {

std::optional<std::string> read_file(const std::string& path) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"), close);
  if (file == nullptr) return std::nullopt;
  std::string content;
  constexpr size_t kChunk = size_t{1} << 24;
  for (size_t got = 1; got != 0;) {
    const size_t before = content.size();
    content.resize(before + kChunk);
    got = std::fread(content.data() + before, 1, kChunk, file.get());
    content.resize(before + got);
  }
  if (std::ferror(file.get()) != 0) return std::nullopt;
  return content;
}

}  // namespace page4d
