// Manifests are read, and refused with the messages of Python's reader: the cases are tests/vectors/manifests.json.
#include "manifest/manifest_file.h"
#include "support/check.h"
#include "support/vectors.h"

using namespace page4d;
using Json = nlohmann::ordered_json;

namespace {

Json changed(const Json& base, const Json& place, const Json& value, const std::string& removed) {
  Json manifest = base;
  Json* inner = &manifest;
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
  return manifest;
}

// First line; empty if the manifest is read.
std::string refusal_of(const std::string& content) {
  const std::string message = refusal([&] { parse_manifest(content, "manifest.json"); });
  return message == "nothing is thrown" ? "" : first_line(message);
}

// cases: {"base": a manifest, "changed": what is changed in it, with the error}
void test_messages(const Json& cases) {
  CHECK(cases["changed"].size() > 1);
  for (const Json& entry : cases["changed"]) {
    const Json manifest = changed(cases["base"], entry["place"], entry["value"], vectors("manifests.json")["removed"]);
    CHECK_TEXT(refusal_of(manifest.dump()), first_line(entry["said"]));
  }
}

// All lines: a reader in one language may not allow what the other refuses.
void test_what_is_allowed(const Json& cases) {
  for (const Json& entry : cases["changed"]) {
    const std::string said = entry["said"], damaged = "manifest.json is damaged";
    if (said.empty() || said.rfind(damaged, 0) == 0) continue;
    const Json manifest = changed(cases["base"], entry["place"], entry["value"], vectors("manifests.json")["removed"]);
    CHECK_TEXT(refusal([&] { parse_manifest(manifest.dump(), "manifest.json"); }), said);
  }
}

void test_no_json() {
  const Json cases = vectors("manifests.json");
  CHECK(cases["no_json"].size() > 10);
  for (const Json& entry : cases["no_json"]) {
    const std::string message = refusal_of(from_hex(entry));
    CHECK_TEXT(message.substr(0, message.find(':')), "manifest.json is damaged");
  }
}

void test_limits() {
  const Json cases = vectors("manifests.json");
  Json deep = cases["base"];
  deep.update(cases["deep"]);
  CHECK_TEXT(refusal_of(deep.dump()), "");
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
  CHECK(!manifest.plans && !manifest.points_frame);
  const Manifest heads = parse_manifest(vectors("manifests.json")["heads"]["base"].dump(), "manifest.json");
  CHECK(heads.points_frame == "world" && heads.stages.back().kind == "points" && heads.stages.back().calls == 3);
}

void test_no_folder() {
  CHECK_TEXT(
      refusal([] { read_manifest("no/such/folder"); }),
      "there is no such engine folder\n  got:     no/such/folder\n  try:     page4d-export -o ENGINES --T .. --V ..");
}

}  // namespace

int main() {
  test_messages(vectors("manifests.json"));
  test_messages(vectors("manifests.json")["heads"]);
  test_what_is_allowed(vectors("manifests.json")["heads"]);
  for (const Json& list : {vectors("manifests.json")["published"], vectors("absence/manifests.json")["cases"]}) {
    CHECK(list.size() > 4);
    for (const Json& cases : list) {
      test_messages(cases);
      test_what_is_allowed(cases);
    }
  }
  test_no_json();
  test_limits();
  test_content();
  test_no_folder();
}
