// SHA-256 against the examples of FIPS 180-4's authors, whole and in parts of every size.
#include "files/sha256.h"
#include "support/check.h"

using page4d::Sha256;

namespace {

std::string digest(const std::string& text, size_t part) {
  Sha256 hash;
  for (size_t at = 0; at < text.size(); at += part) hash.add(text.data() + at, std::min(part, text.size() - at));
  return hash.digest();
}

}  // namespace

int main() {
  const std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const std::string million(1000000, 'a');
  CHECK_TEXT(digest("", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_TEXT(digest("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  for (size_t part = 1; part < 60; ++part)
    CHECK_TEXT(digest(two, part), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  for (size_t part : {63, 64, 65, 127, 1000, 1000000}) {
    CHECK_TEXT(digest(million, part), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}
