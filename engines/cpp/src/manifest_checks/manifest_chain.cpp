#include "manifest_checks/manifest_chain.h"

#include <algorithm>
#include <map>
#include <set>

#include "manifest_checks/manifest_check.h"
#include "manifest_checks/manifest_kinds.h"
#include "manifest_checks/manifest_shapes.h"
#include "text.h"

namespace page4d {
namespace {

constexpr size_t kMostKept = 64;

constexpr char kNoEncoder[] = "the encoder is not its first stage", kOneEncoder[] = "one encoder, before all others";

using Names = std::vector<std::string>;

bool is_block(const Stage& stage) {
  return stage.kind == "view_sa" || stage.kind == "time_sa" || stage.kind == "global_sa";
}

bool is_camera_encoder(const Stage& stage) { return stage.kind == "camera_encoder"; }

void check_calls(const Manifest& manifest, const StagesModel& model) {
  const int64_t images = manifest.layout.images(), n = manifest.encoder_images;
  const Stage* first = &manifest.stages.front() + (is_camera_encoder(manifest.stages.front()) ? 1 : 0);
  for (const Stage& stage : manifest.stages) {
    if (&stage != &manifest.stages.front() && is_camera_encoder(stage)) {
      throw inconsistent("the camera encoder is not its first stage", stage.name,
                         "one camera encoder, before all others");
    }
    if (&stage >= first && (stage.kind == "encoder") != (&stage == first))
      throw inconsistent(kNoEncoder, stage.name, kOneEncoder);
    bool fits = stage.calls == 1;
    std::string allowed = "once";
    if (&stage == first) {
      fits = images % n == 0 && stage.calls == images / n;
      allowed = text(images, " images, ", n, " a call");
    } else if (model.takes_chunks(stage)) {
      fits = images % stage.calls == 0;
      allowed = text("a divisor of ", images, " images");
    }
    if (!fits) throw inconsistent(stage.name + " is called another number of times", text(stage.calls), allowed);
  }
  if (first == &manifest.stages.front() + manifest.stages.size())
    throw inconsistent(kNoEncoder, manifest.stages.front().name, kOneEncoder);
}

// The blocks are those of the model, in its order.
void check_blocks(const Manifest& manifest, const StagesModel& model) {
  Names blocks, expected;
  for (const Stage& stage : manifest.stages) {
    if (is_block(stage)) blocks.push_back(stage.name);
  }
  for (int64_t layer = 0; model.depth <= static_cast<int64_t>(blocks.size()) && layer < model.depth; ++layer) {
    for (const std::string& block : model.order) expected.push_back(text(block, "_sa.", layer));
    if (model.is_global(layer)) expected.push_back(text("global_sa.", layer));
  }
  bool inside = true;
  for (int64_t layer : model.global_layers) inside = inside && 0 <= layer && layer < model.depth;
  if (blocks != expected || !inside) {
    throw inconsistent(text("its blocks are not those of a model of ", model.depth, " layers"), or_none(joined(blocks)),
                       expected.empty() ? "view_sa and time_sa of every layer" : joined(expected));
  }
}

// The position of each stage in the chain.
std::map<std::string, size_t> places_of(const Manifest& manifest) {
  std::map<std::string, size_t> places;
  for (const Stage& stage : manifest.stages) places.emplace(stage.name, places.size());
  return places;
}

// Whether kept layers can be gathered from the outputs of their stages.
KeptLayers check_kept(const Manifest& manifest, const StagesModel& model) {
  if (manifest.keep.size() > kMostKept)
    throw inconsistent("it keeps too many layers", text(manifest.keep.size()), text("up to ", kMostKept));
  const auto places = places_of(manifest);
  KeptLayers layers;
  for (const KeptLayer& kept : manifest.keep) {
    if (!layers.emplace(text("layers.", kept.layer), &kept).second)
      throw inconsistent("a layer is kept twice", text(kept.layer), "a number for each");
    bool is_valid = !kept.stages.empty();
    std::optional<size_t> before;
    for (const std::string& name : kept.stages) {
      const auto place = places.find(name);
      is_valid = is_valid && place != places.end() && manifest.stages[place->second].layer == kept.layer &&
                 (!before || *before < place->second);
      if (is_valid) before = place->second;
    }
    if (!is_valid) {
      throw inconsistent(text("layer ", kept.layer, " is kept of other stages than its own"),
                         or_none(joined(kept.stages)), "stages of that layer, in their order");
    }
    if (kept.streams != model.streams) {
      throw inconsistent(text("layer ", kept.layer, " is kept of other streams than the model has"), text(kept.streams),
                         text(model.streams));
    }
  }
  return layers;
}

// The mask head stands right before the first stage that reads its mask: elsewhere it would see other tokens.
void check_mask(const Manifest& manifest) {
  const Stage* before = nullptr;
  for (const Stage& stage : manifest.stages) {
    if (stage.input("mask") != nullptr) {
      if (before == nullptr || before->kind != "mask_head") {
        throw inconsistent("the mask head does not stand before the first reader of its mask",
                           before == nullptr ? "none" : before->name, "mask_head");
      }
      return;
    }
    before = &stage;
  }
}

// Goes through the stages in order: every input exists by then, in the shape in which it was written.
void check_flow(const Manifest& manifest, const StagesModel& model, const KeptLayers& layers) {
  const auto places = places_of(manifest);
  // inputs of the chain
  std::set<std::string> available{"images", "special", "mask_ext", "keypoints", "fundamental", "memory"};
  if (is_camera_encoder(manifest.stages.front())) available.insert("cameras");
  Shapes shapes(manifest, model, layers);
  for (size_t number = 0; number < manifest.stages.size(); ++number) {
    const Stage& stage = manifest.stages[number];
    for (const TensorSpec& spec : stage.inputs) {
      const auto kept = layers.find(spec.name);
      bool ran = kept != layers.end();
      for (size_t i = 0; ran && i < kept->second->stages.size(); ++i) ran = places.at(kept->second->stages[i]) < number;
      if (available.count(spec.name) == 0 && !ran)
        throw inconsistent(stage.name + " reads what is not there by then", spec.name, joined(available));
      shapes.check(stage, spec, shapes.streams);
    }
    for (const TensorSpec& spec : stage.outputs) {
      shapes.check(stage, spec, model.streams);  // a block may read one stream and write two
      available.insert(spec.name);
    }
    if (is_block(stage)) shapes.streams = stage.output("tokens")->shape.front();
  }
  check_mask(manifest);
}

// A reference view is chosen among views of one timestep, and only where no cameras are known.
void check_reference(const Manifest& manifest) {
  const bool is_known = is_camera_encoder(manifest.stages.front());
  const Stage& encoder = manifest.stages[is_known ? 1 : 0];
  const bool selects = encoder.output("select") != nullptr;
  if (manifest.layout.T > 1 && (is_known || selects)) {
    throw inconsistent("known cameras, or the choice of a reference view, are for one timestep",
                       text("T=", manifest.layout.T), "T=1");
  }
  if (is_known && selects) {
    throw inconsistent("it chooses a reference view although the cameras are known", "select",
                       "camera_encoder or select, not both");
  }
}

// Points have a frame, which Pi3's older manifests do not name, and without points there is none. So for the direction
// of poses, which is world to camera if it is not named; and metres come from somewhere.
void check_frame(const Manifest& manifest) {
  if (manifest.points_frame && !manifest.makes("points"))
    throw inconsistent("it has a points_frame and no points", *manifest.points_frame, "no points_frame");
  if (!manifest.points_frame && manifest.makes("points_confidence"))
    throw inconsistent("it does not say which frame its points are in", "no points_frame", kFrames);
  if (manifest.pose_direction && !manifest.makes("camera"))
    throw inconsistent("it has a pose_direction and no camera", *manifest.pose_direction, "no pose_direction");
  if (manifest.unit && !manifest.makes("metric") && !manifest.makes("sky"))
    throw inconsistent("it has a unit and no metric or sky", *manifest.unit, "no unit");
}

}  // namespace

void check_chain(const Manifest& manifest) {
  const StagesModel model = StagesModel::of(manifest);
  for (const Stage& stage : manifest.stages) check_kind(stage);
  check_calls(manifest, model);
  check_blocks(manifest, model);
  check_flow(manifest, model, check_kept(manifest, model));
  check_reference(manifest);
  check_frame(manifest);
}

}  // namespace page4d
