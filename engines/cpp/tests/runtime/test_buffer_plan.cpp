// Buffers, calls and gathered rows are those that Python plans: the cases are tests/vectors/plans.json.
#include "runtime/buffer_plan.h"
#include "support/check.h"
#include "support/vectors.h"
#include "text.h"

using namespace page4d;
using Json = nlohmann::ordered_json;

namespace {

std::string words(const std::string& buffer, int64_t offset, const std::vector<int64_t>& shape,
                  const std::string& dtype) {
  return text(buffer, "+", offset, " ", dtype, text_of(shape));
}

std::string words(const BufferView& view) { return words(view.buffer, view.offset, view.shape, name_of(view.dtype)); }

void check_views(const std::string& where, const std::vector<NamedView>& found, const Json& wanted) {
  CHECK_TEXT(text(where, found.size()), text(where, wanted.size()));
  for (const auto& [name, view] : found) {
    CHECK(wanted.contains(name));
    const Json& want = wanted[name];
    CHECK_TEXT(text(where, name, " ", words(view)),
               text(where, name, " ", words(want["buffer"], want["offset"], want["shape"], want["dtype"])));
  }
}

void check_gathers(const std::vector<Gather>& found, const Json& wanted) {
  CHECK(found.size() == wanted.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const Gather& g = found[i];
    CHECK_TEXT(Json({g.source, g.target, g.source_offset, g.target_offset, g.rows, g.width, g.pitch}).dump(),
               wanted[i].dump());
  }
}

// What moves, and the calls that are left, by shared times.
void check_carries(const BufferPlan& plan, const Json& wanted) {
  CHECK(plan.carries.size() == wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Carry& carry = plan.carries[i];
    CHECK(carry.images == wanted[i]["images"]);
    check_gathers(carry.gathers, wanted[i]["gathers"]);
    Json calls = Json::array();
    for (const Step& step : plan.steps) {
      if (step.images == 0 || step.images > carry.images) calls.push_back(step.call);
    }
    CHECK_TEXT(calls.dump(), wanted[i]["calls"].dump());
  }
}

void check_plan(const Json& wanted) {
  const std::string name = wanted["name"];
  const Manifest manifest = parse_manifest(wanted["manifest"].dump(), "manifest.json");
  const bool sliding = wanted.contains("carries");
  const BufferPlan plan = BufferPlan::make(manifest, sliding);
  check_carries(plan, sliding ? wanted["carries"] : Json::array());
  CHECK(plan.total() == wanted["total"]);
  CHECK(plan.sizes.size() == wanted["sizes"].size());
  for (const auto& [buffer, size] : plan.sizes)
    CHECK_TEXT(text(name, buffer, size), text(name, buffer, wanted["sizes"][buffer].get<int64_t>()));
  check_views(name + " starts ", plan.starts, wanted["starts"]);
  check_views(name + " outputs ", plan.outputs, wanted["outputs"]);
  CHECK(plan.steps.size() == wanted["steps"].size());
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Json& want = wanted["steps"][i];
    const Call& call = plan.calls[plan.steps[i].call];
    const std::string where = text(name, " step ", i, " ");
    CHECK_TEXT(where + call.stage->name, where + want["stage"].get<std::string>());
    check_views(where, call.inputs, want["inputs"]);
    check_views(where, call.outputs, want["outputs"]);
    check_gathers(plan.steps[i].gathers, want["gathers"]);
  }
}

}  // namespace

int main() {
  const Json all = vectors("plans.json");
  CHECK(all["plans"].size() > 5 && all["slides"].size() > 2);
  for (const char* kind : {"plans", "slides"}) {
    for (const Json& each : all[kind]) check_plan(each);
  }
}
