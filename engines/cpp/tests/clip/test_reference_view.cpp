// The reference view against page4d.network.reference_view.
#include <limits>
#include <vector>

#include "clip/camera_vectors.h"
#include "clip/reference_view.h"
#include "support/allocations.h"
#include "support/check.h"

namespace {

using Json = nlohmann::ordered_json;

int64_t view_of(const std::vector<float>& tokens, int64_t V, int64_t C) {
  std::vector<double> scratch(static_cast<size_t>(C + 3 * V));
  int64_t view = -1;
  CHECK(allocations_of([&] { view = page4d::balanced_view(tokens.data(), V, C, scratch.data()); }) == 0);
  return view;
}

void test_views_are_pythons() {
  const Json& cases = vectors("reference_view.json").at("cases");
  int others = 0;
  for (const Json& entry : cases) {
    std::vector<float> tokens;
    for (const Json& row : entry.at("tokens"))
      for (const Json& value : row) tokens.push_back(static_cast<float>(number_of(value)));
    const auto V = static_cast<int64_t>(entry.at("tokens").size());
    const int64_t view = view_of(tokens, V, static_cast<int64_t>(tokens.size()) / V);
    CHECK(view == entry.at("view").get<int64_t>());
    others += view != 0 ? 1 : 0;
  }
  CHECK(cases.size() > 8 && others > 3);
}

void test_infinity_is_no_measure() {
  std::vector<float> tokens;
  for (const Json& row : vectors("reference_view.json").at("cases")[4].at("tokens"))
    for (const Json& value : row) tokens.push_back(value);
  CHECK(view_of(tokens, 4, 16) != 0);
  tokens[20] = std::numeric_limits<float>::infinity();
  CHECK(view_of(tokens, 4, 16) == 0);
}

}  // namespace

int main() {
  test_views_are_pythons();
  test_infinity_is_no_measure();
}
