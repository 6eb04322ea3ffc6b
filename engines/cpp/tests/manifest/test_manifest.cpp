// Manifests are read, and refused in the words of Python's reader: the cases are tests/vectors/manifests.json.
#include "manifest/manifest.h"
#include "support/check.h"
#include "support/vectors.h"

using namespace page4d;
using Json = nlohmann::ordered_json;

namespace {

Json changed(const Json& base, const Json& place, const Json& value, const std::string& removed) {
  Json made = base;
  Json* inner = &made;
  for (size_t i = 0; i + 1 < place.size(); ++i)
    inner = place[i].is_string() ? &(*inner)[place[i].get<std::string>()] : &(*inner)[place[i].get<size_t>()];
  const Json& last = place.back();
  if (value == removed) {
    inner->erase(last.get<std::string>());
  } else if (last.is_string()) {
    (*inner)[last.get<std::string>()] = value;
  } else {
    (*inner)[last.get<size_t>()] = value;
  }
  return made;
}

std::string said(const std::string& content) {
  const std::string words = refusal([&] { parse_manifest(content, "manifest.json"); });
  return words == "nothing is thrown" ? "" : words;
}

void test_words() {
  const Json cases = vectors("manifests.json");
  CHECK(cases["changed"].size() > 60);
  for (const Json& each : cases["changed"]) {
    const Json made = changed(cases["base"], each["place"], each["value"], cases["removed"]);
    CHECK_TEXT(said(made.dump()), each["said"]);
  }
}

void test_no_json() {
  const Json cases = vectors("manifests.json");
  CHECK(cases["no_json"].size() > 10);
  for (const Json& each : cases["no_json"]) {
    const std::string words = said(from_hex(each));
    CHECK_TEXT(words.substr(0, words.find(':')), "manifest.json is damaged");
  }
}

void test_limits() {
  const Json cases = vectors("manifests.json");
  Json deep = cases["base"];
  deep.update(cases["deep"]);
  CHECK_TEXT(said(deep.dump()), "");
}

void test_content() {
  const Manifest manifest = parse_manifest(vectors("manifests.json")["base"].dump(), "manifest.json");
  CHECK(manifest.layout.T == 3 && manifest.layout.V == 2 && manifest.layout.H == 56 && manifest.layout.W == 70 &&
        manifest.layout.B == 1);
  CHECK(manifest.width == 128);
  CHECK(manifest.stages.front().name == "encoder" && manifest.stages.front().input("images")->dtype == DType::kUint8);
  CHECK(manifest.stages.front().output("tokens")->shape == (std::vector<int64_t>{6, 25, 128}));
  CHECK(manifest.reads("mask_ext") && manifest.makes("mask") && !manifest.reads("keypoints") &&
        !manifest.makes("memory"));
  CHECK(manifest.keep.size() == 1 && manifest.keep.front().streams == 2);
  CHECK(!manifest.plans);
}

void test_no_folder() {
  CHECK_TEXT(
      refusal([] { read_manifest("no/such/folder"); }),
      "there is no such engine folder\n  got:     no/such/folder\n  try:     page4d-export -o ENGINES --T .. --V ..");
}

}  // namespace

int main() {
  test_words();
  test_no_json();
  test_limits();
  test_content();
  test_no_folder();
}
