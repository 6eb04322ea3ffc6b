// SHA-256 by every method that this CPU has, against the examples of FIPS 180-4's authors, whole and in parts of every
// size. `test_sha256 digests` prints digests for test_sha256.py to compare: of the first n bytes of i % 251.
#include <cstdio>
#include <cstring>

#include "files/sha256.h"
#include "support/check.h"

using page4d::Sha256;

namespace {

std::string digest(page4d::Sha256Blocks method, const std::string& text, size_t part) {
  Sha256 hash(method);
  for (size_t at = 0; at < text.size(); at += part) hash.add(text.data() + at, std::min(part, text.size() - at));
  return hash.digest();
}

void print_digests() {
  std::string bytes;
  for (int i = 0; i <= 4200; ++i) bytes += static_cast<char>(i % 251);
  for (const auto& [name, method] : page4d::sha256_methods())
    for (size_t size = 0; size < bytes.size(); size += size < 260 || size >= 4090 ? 1 : 61)
      std::printf("%s %zu %s\n", name, size, digest(method, bytes.substr(0, size), size + 1).c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "digests") == 0) return print_digests(), 0;
  const std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const std::string million(1000000, 'a');
  CHECK(std::strcmp(page4d::sha256_methods().back().name, "portable") == 0);
  for (const auto& [name, method] : page4d::sha256_methods()) {
    CHECK_TEXT(digest(method, "", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_TEXT(digest(method, "abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for (size_t part = 1; part < 60; ++part)
      CHECK_TEXT(digest(method, two, part), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    for (size_t part : {63, 64, 65, 127, 1000, 1000000})
      CHECK_TEXT(digest(method, million, part), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}
