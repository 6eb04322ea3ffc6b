// Buffers, calls and gathered rows are those that Python plans: the cases are tests/vectors/plans.json.
#include "manifest/manifest_file.h"
#include "runtime/buffer_plan.h"
#include "support/check.h"
#include "support/vectors.h"
#include "text.h"

using namespace page4d;
using Json = nlohmann::ordered_json;

namespace {

std::string described(const std::string& buffer, int64_t offset, const std::vector<int64_t>& shape,
                      const std::string& dtype) {
  return text(buffer, "+", offset, " ", dtype, text_of(shape));
}

std::string described(const BufferView& view) {
  return described(view.buffer, view.offset, view.shape, name_of(view.dtype));
}

void check_views(const std::string& where, const std::vector<NamedView>& actual, const Json& expected) {
  CHECK_TEXT(text(where, actual.size()), text(where, expected.size()));
  for (const auto& [name, view] : actual) {
    CHECK(expected.contains(name));
    const Json& entry = expected[name];
    CHECK_TEXT(text(where, name, " ", described(view)),
               text(where, name, " ", described(entry["buffer"], entry["offset"], entry["shape"], entry["dtype"])));
  }
}

void check_gathers(const std::vector<Gather>& actual, const Json& expected) {
  CHECK(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    const Gather& g = actual[i];
    CHECK_TEXT(Json({g.source, g.target, g.source_offset, g.target_offset, g.rows, g.width, g.pitch}).dump(),
               expected[i].dump());
  }
}

// The gathers, and the calls that remain, by shared timesteps.
void check_carries(const BufferPlan& plan, const Json& expected) {
  CHECK(plan.carries.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const Carry& carry = plan.carries[i];
    CHECK(carry.images == expected[i]["images"]);
    check_gathers(carry.gathers, expected[i]["gathers"]);
    Json calls = Json::array();
    for (const Step& step : plan.steps) {
      if (step.images == 0 || step.images > carry.images) calls.push_back(step.call);
    }
    CHECK_TEXT(calls.dump(), expected[i]["calls"].dump());
  }
}

void check_reference(const std::string& name, const ReferenceChoice& actual, const Json& expected) {
  CHECK(actual.call == expected["call"] && actual.clips == expected["clips"]);
  Json slots = expected;
  slots.erase("call"), slots.erase("clips");
  check_views(name + " reference ", {{"select", actual.select}, {"special", actual.special}, {"tokens", actual.tokens}},
              slots);
}

void check_plan(const Json& expected) {
  const std::string name = expected["name"];
  const Manifest manifest = parse_manifest(expected["manifest"].dump(), "manifest.json");
  const bool sliding = expected.contains("carries");
  const BufferPlan plan = BufferPlan::make(manifest, sliding);
  check_carries(plan, sliding ? expected["carries"] : Json::array());
  CHECK(plan.total() == expected["total"]);
  CHECK(plan.sizes.size() == expected["sizes"].size());
  for (const auto& [buffer, size] : plan.sizes)
    CHECK_TEXT(text(name, buffer, size), text(name, buffer, expected["sizes"][buffer].get<int64_t>()));
  check_views(name + " starts ", plan.starts, expected["starts"]);
  check_views(name + " outputs ", plan.outputs, expected["outputs"]);
  CHECK(plan.reference.has_value() == expected.contains("reference"));
  if (plan.reference) check_reference(name, *plan.reference, expected["reference"]);
  CHECK(plan.steps.size() == expected["steps"].size());
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Json& step = expected["steps"][i];
    const Call& call = plan.calls[plan.steps[i].call];
    const std::string where = text(name, " step ", i, " ");
    CHECK_TEXT(where + call.stage->name, where + step["stage"].get<std::string>());
    check_views(where, call.inputs, step["inputs"]);
    check_views(where, call.outputs, step["outputs"]);
    check_gathers(plan.steps[i].gathers, step["gathers"]);
  }
}

}  // namespace

int main() {
  const Json all = vectors("plans.json");
  CHECK(all["plans"].size() > 5 && all["slides"].size() > 2);
  for (const char* kind : {"plans", "slides"}) {
    for (const Json& entry : all[kind]) check_plan(entry);
  }
  const Json published = vectors("published_plans.json")["plans"];
  CHECK(published.size() > 8);
  for (const Json& entry : published) check_plan(entry);
  for (const char* kind : {"plans", "published", "slides"}) {
    CHECK(vectors("absence/plans.json")[kind].size() > 1);
    for (const Json& entry : vectors("absence/plans.json")[kind]) check_plan(entry);
  }
}
