#include "files/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace page4d {
namespace {

constexpr size_t kChunk = size_t{1} << 24, kLeast = 4096;

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    const int read_errno = errno;
    if (number_ >= 0) close(number_);
    errno = read_errno;
  }
  int number() const { return number_; }

 private:
  int number_;
};

bool is_file(const struct stat& status) {
  if (S_ISREG(status.st_mode)) return true;
  errno = EINVAL;
  return false;
}

}  // namespace

std::optional<std::string> read_file(const std::string& path, size_t most) {
  struct stat status{};
  // checked before it is opened, since that may start an action of a device, and again afterwards, since it may have
  // been replaced in between: O_NONBLOCK, so that opening a FIFO does not wait
  if (stat(path.c_str(), &status) != 0 || !is_file(status)) return std::nullopt;
  const Descriptor file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (file.number() < 0 || fstat(file.number(), &status) != 0 || !is_file(status)) return std::nullopt;
  std::string content;
  for (;;) {
    const size_t before = content.size();
    // a byte more than the file has, to see the end
    const size_t expected = std::max(static_cast<size_t>(status.st_size) + 1, before + kLeast);
    content.resize(std::min(expected, before + kChunk));
    const ssize_t size = read(file.number(), content.data() + before, content.size() - before);
    if (size < 0 && errno != EINTR) return std::nullopt;
    content.resize(before + static_cast<size_t>(std::max<ssize_t>(size, 0)));
    if (size == 0) return content;
    if (content.size() > most) {
      errno = EFBIG;
      return std::nullopt;
    }
  }
}

}  // namespace page4d
