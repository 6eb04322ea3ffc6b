#include "manifest_checks/manifest_kinds.h"

#include <algorithm>
#include <map>

#include "manifest_checks/manifest_check.h"
#include "text.h"

namespace page4d {
namespace {

constexpr int64_t kWidest = 65535;
constexpr int64_t kMostStreams = 2;
constexpr char kOut[] = "_out";

using Names = std::vector<std::string>;

// A kind of stage: the names of its tensors; in `more_inputs` and `more_outputs` those that it may have.
struct Kind {
  const char* name;
  Names inputs, outputs, more_inputs, more_outputs;
  int64_t most_layers = 1;  // kept layers or features that it reads or writes, at least one, where it has them

  int64_t most(const std::string& tensor) const { return tensor == kLayer || tensor == kFeatures ? most_layers : 1; }
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"encoder", {"images", "special"}, {"tokens"}, {}, {"select"}},
      {"mask_head", {"tokens"}, {"mask"}, {"mask_ext"}, {"row_bias"}},
      {"view_sa", {"tokens"}, {"tokens"}, {"mask", "fundamental"}, {}},
      {"time_sa", {"tokens"}, {"tokens"}, {"mask", "row_bias"}, {}},
      {"global_sa", {"tokens"}, {"tokens"}, {"mask", "keypoints", "memory"}, {"memory"}},
      {"points", {kLayer}, {"points"}, {}, {}},
      {"confidence", {kLayer}, {"confidence"}, {}, {}},
      {"camera", {kLayer}, {"camera"}, {}, {}},
      {"depth", {kLayer}, {"depth", "depth_confidence"}, {}, {}, 4},
      {"camera_encoder", {"cameras"}, {"special"}, {}, {}},
      {"metric", {kLayer}, {"metric"}, {}, {}}};
  return all;
}

// The kinds of a name that other tensors tell apart.
const Kind& kind_of(const Stage& stage, const Kind& named) {
  static const Kind points_of_dpt = {"points", {kLayer}, {"points", "points_confidence"}, {}, {}, 4};
  static const Kind depth_and_sky = {"depth", {kFeatures}, {"depth", "sky"}, {}, {}, 4};
  static const Kind encoder_alone = {"encoder", {"images"}, {kFeatures}, {}, {}, 4};
  if (stage.kind == "points" && stage.output("points_confidence") != nullptr) return points_of_dpt;
  if (stage.kind == "depth" && stage.output("sky") != nullptr) return depth_and_sky;
  const bool gives_features = std::any_of(stage.outputs.begin(), stage.outputs.end(),
                                          [](const TensorSpec& spec) { return pattern_of(spec.name) == kFeatures; });
  return stage.kind == "encoder" && gives_features ? encoder_alone : named;
}

bool has(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void check_tensors(const Stage& stage, const Kind& kind, const std::vector<TensorSpec>& specs, const Names& needed,
                   const Names& more) {
  std::map<std::string, int64_t> counts;
  Names all;
  bool fits = true;
  for (const TensorSpec& spec : specs) {
    all.push_back(spec.name);
    const std::string name = pattern_of(spec.name);
    fits = ++counts[name] <= kind.most(name) && (has(needed, name) || has(more, name)) && fits;
  }
  Names several;
  for (const std::string& name : needed) {
    fits = fits && counts.count(name) != 0;
    several.push_back(kind.most(name) > 1 ? text("1 to ", kind.most(name), " ", name) : name);
  }
  if (fits) return;
  std::string allowed = joined(several);
  for (const std::string& name : more) allowed += " [" + name + "]";
  throw inconsistent(text(stage.name, " has other tensors than a stage of kind ", stage.kind), or_none(joined(all)),
                     allowed);
}

void check_suffix(const Stage& stage, const TensorSpec& spec, const std::string& suffix) {
  if (spec.suffix != suffix)
    throw inconsistent(text(spec.name, " of ", stage.name, " has another suffix"), or_none(spec.suffix),
                       or_none(suffix));
}

}  // namespace

StagesModel StagesModel::of(const Manifest& manifest) {
  const auto number = [&](const char* name, int64_t least, int64_t most) {
    const ModelValue& value = manifest.options.at(name);
    if (!value.number || *value.number < least || *value.number > most) {
      throw inconsistent(text("its model has no ", name), value.shown, most == 0 ? "0" : text(least, " to ", most));
    }
    return *value.number;
  };
  StagesModel model;
  model.published = manifest.options.at("published").string.value_or("");
  const bool sees_alone = model.published == "da3-mono" || model.published == "da3-metric";
  model.width = number("width", 1, kWidest), model.streams = number("streams", 1, kMostStreams);
  model.depth = sees_alone ? number("depth", 0, 0) : number("depth", 1, kWidest);
  const ModelValue &order = manifest.options.at("order"), &layers = manifest.options.at("global_layers");
  if (!order.strings || (*order.strings != Names{"view", "time"} && *order.strings != Names{"time", "view"})) {
    throw inconsistent("its model has no order", order.shown, "view, time in either order");
  }
  if (!layers.integers) throw inconsistent("its model has no global_layers", layers.shown, "a list of layers");
  model.order = *order.strings, model.global_layers = {layers.integers->begin(), layers.integers->end()};
  return model;
}

bool StagesModel::takes_chunks(const Stage& stage) const {
  if (published == "pi3x" && (stage.kind == "points" || stage.kind == "confidence")) return true;
  return stage.output("depth_confidence") != nullptr || stage.output("points_confidence") != nullptr ||
         stage.output("sky") != nullptr;
}

void check_kind(const Stage& stage) {
  const Kind* named = nullptr;
  Names known;
  for (const Kind& known_kind : kinds()) {
    known.push_back(known_kind.name);
    if (stage.kind == known_kind.name) named = &known_kind;
  }
  if (named == nullptr) throw inconsistent(stage.name + " is of an unknown kind", stage.kind, joined(known));
  const Kind& kind = kind_of(stage, *named);
  const std::string expected = stage.layer ? text(stage.kind, ".", *stage.layer) : stage.kind;
  if (stage.name != expected) throw inconsistent("a stage is not called by its kind and layer", stage.name, expected);
  check_tensors(stage, kind, stage.inputs, kind.inputs, kind.more_inputs);
  check_tensors(stage, kind, stage.outputs, kind.outputs, kind.more_outputs);
  if (stage.kind == "global_sa" && (stage.input("memory") == nullptr) != (stage.output("memory") == nullptr)) {
    throw inconsistent(stage.name + " has other tensors than a stage of kind global_sa", "memory on one side",
                       "memory in and out, or neither");
  }
  for (const TensorSpec& spec : stage.inputs) check_suffix(stage, spec, "");
  for (const TensorSpec& spec : stage.outputs) check_suffix(stage, spec, stage.input(spec.name) != nullptr ? kOut : "");
}

std::string pattern_of(const std::string& name) {
  if (name.rfind("layers.", 0) == 0) return kLayer;
  return name.rfind("features.", 0) == 0 ? kFeatures : name;
}

}  // namespace page4d
