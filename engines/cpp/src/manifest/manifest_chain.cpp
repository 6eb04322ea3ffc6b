#include "manifest/manifest_chain.h"

#include <algorithm>
#include <map>
#include <set>

#include "clip/poses.h"
#include "manifest/manifest_check.h"
#include "text.h"

namespace page4d {
namespace {

constexpr size_t kMostKept = 64;
constexpr int64_t kWidest = 65535;
constexpr int64_t kMostStreams = 2;
constexpr char kLayer[] = "layers.<i>";
constexpr char kOut[] = "_out";

using Names = std::vector<std::string>;
using Shape = std::vector<int64_t>;

// A kind of stage: the names of its tensors; in `more_inputs` and `more_outputs` those that it may have.
struct Kind {
  const char* name;
  Names inputs, outputs, more_inputs, more_outputs;
  int64_t most_layers = 1;  // kept layers that it reads, at least one, where `inputs` has them

  int64_t most(const std::string& tensor) const { return tensor == kLayer ? most_layers : 1; }
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"encoder", {"images", "special"}, {"tokens"}, {}, {}},
      {"mask_head", {"tokens"}, {"mask"}, {"mask_ext"}, {"row_bias"}},
      {"view_sa", {"tokens"}, {"tokens"}, {"mask", "fundamental"}, {}},
      {"time_sa", {"tokens"}, {"tokens"}, {"mask", "row_bias"}, {}},
      {"global_sa", {"tokens"}, {"tokens"}, {"mask", "keypoints", "memory"}, {"memory"}},
      {"points", {kLayer}, {"points"}, {}, {}},
      {"confidence", {kLayer}, {"confidence"}, {}, {}},
      {"camera", {kLayer}, {"camera"}, {}, {}},
      {"depth", {kLayer}, {"depth", "depth_confidence"}, {}, {}, 4}};
  return all;
}

const Kind& points_of_chunks() {
  static const Kind kind = {"points", {kLayer}, {"points", "points_confidence"}, {}, {}, 4};
  return kind;
}

// Whether it is a head of VGGT's that processes the images in chunks, [n,...] a call.
bool takes_chunks(const Stage& stage) {
  return stage.output("depth_confidence") != nullptr || stage.output("points_confidence") != nullptr;
}

bool is_block(const Stage& stage) {
  return stage.kind == "view_sa" || stage.kind == "time_sa" || stage.kind == "global_sa";
}
bool is_layer(const std::string& tensor) { return tensor.rfind("layers.", 0) == 0; }
bool has(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}
std::string or_none(const std::string& list) { return list.empty() ? "none" : list; }

// The model's options that decide its chain of stages.
struct Model {
  int64_t width, streams, depth;
  Names order;
  std::set<int64_t> global_layers;

  static Model of(const Manifest& manifest) {
    const auto number = [&](const char* name, int64_t most) {
      const ModelValue& value = manifest.options.at(name);
      if (!value.number || *value.number < 1 || *value.number > most) {
        throw inconsistent(text("its model has no ", name), value.shown, text("1 to ", most));
      }
      return *value.number;
    };
    Model model{};
    model.width = number("width", kWidest), model.streams = number("streams", kMostStreams),
    model.depth = number("depth", kWidest);
    const ModelValue &order = manifest.options.at("order"), &layers = manifest.options.at("global_layers");
    if (!order.strings || (*order.strings != Names{"view", "time"} && *order.strings != Names{"time", "view"})) {
      throw inconsistent("its model has no order", order.shown, "view, time in either order");
    }
    if (!layers.integers) throw inconsistent("its model has no global_layers", layers.shown, "a list of layers");
    model.order = *order.strings, model.global_layers = {layers.integers->begin(), layers.integers->end()};
    return model;
  }

  bool is_global(int64_t layer) const { return global_layers.count(layer) != 0; }
};

// A stage's name, its kind, and the names of its tensors.
void check_kind(const Stage& stage) {
  const Kind* kind = nullptr;
  Names known;
  for (const Kind& known_kind : kinds()) {
    known.push_back(known_kind.name);
    if (stage.kind == known_kind.name) kind = &known_kind;
  }
  if (stage.kind == "points" && takes_chunks(stage)) kind = &points_of_chunks();
  if (kind == nullptr) throw inconsistent(stage.name + " is of an unknown kind", stage.kind, joined(known));
  const std::string expected = stage.layer ? text(stage.kind, ".", *stage.layer) : stage.kind;
  if (stage.name != expected) throw inconsistent("a stage is not called by its kind and layer", stage.name, expected);
  const auto check = [&](const std::vector<TensorSpec>& specs, const Names& needed, const Names& more) {
    std::map<std::string, int64_t> counts;
    Names all;
    bool fits = true;
    for (const TensorSpec& spec : specs) {
      all.push_back(spec.name);
      const std::string name = is_layer(spec.name) ? kLayer : spec.name;
      fits = ++counts[name] <= kind->most(name) && (has(needed, name) || has(more, name)) && fits;
    }
    Names several;
    for (const std::string& name : needed) {
      fits = fits && counts.count(name) != 0;
      several.push_back(kind->most(name) > 1 ? text("1 to ", kind->most(name), " ", name) : name);
    }
    if (fits) return;
    std::string allowed = joined(several);
    for (const std::string& name : more) allowed += " [" + name + "]";
    throw inconsistent(text(stage.name, " has other tensors than a stage of kind ", stage.kind), or_none(joined(all)),
                       allowed);
  };
  check(stage.inputs, kind->inputs, kind->more_inputs);
  check(stage.outputs, kind->outputs, kind->more_outputs);
  if (stage.kind == "global_sa" && (stage.input("memory") == nullptr) != (stage.output("memory") == nullptr)) {
    throw inconsistent(stage.name + " has other tensors than a stage of kind global_sa", "memory on one side",
                       "memory in and out, or neither");
  }
  const auto check_suffix = [&](const TensorSpec& spec, const std::string& suffix) {
    if (spec.suffix != suffix)
      throw inconsistent(text(spec.name, " of ", stage.name, " has another suffix"), or_none(spec.suffix),
                         or_none(suffix));
  };
  for (const TensorSpec& spec : stage.inputs) check_suffix(spec, "");
  for (const TensorSpec& spec : stage.outputs) check_suffix(spec, stage.input(spec.name) != nullptr ? kOut : "");
}

void check_calls(const Manifest& manifest) {
  const int64_t images = manifest.layout.images(), n = manifest.encoder_images;
  bool is_first = true;
  for (const Stage& stage : manifest.stages) {
    if ((stage.kind == "encoder") != is_first)
      throw inconsistent("the encoder is not its first stage", stage.name, "one encoder, before all others");
    bool fits = stage.calls == 1;
    std::string allowed = "once";
    if (is_first) {
      fits = images % n == 0 && stage.calls == images / n;
      allowed = text(images, " images, ", n, " a call");
    } else if (takes_chunks(stage)) {
      fits = images % stage.calls == 0;
      allowed = text("a divisor of ", images, " images");
    }
    if (!fits) throw inconsistent(stage.name + " is called another number of times", text(stage.calls), allowed);
    is_first = false;
  }
}

// The blocks are those of the model, in its order.
void check_blocks(const Manifest& manifest, const Model& model) {
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

// Kept layers by the tensors' names.
using KeptLayers = std::map<std::string, const KeptLayer*>;

// The position of each stage in the chain.
std::map<std::string, size_t> places_of(const Manifest& manifest) {
  std::map<std::string, size_t> places;
  for (const Stage& stage : manifest.stages) places.emplace(stage.name, places.size());
  return places;
}

// Whether kept layers can be gathered from the outputs of their stages.
KeptLayers check_kept(const Manifest& manifest, const Model& model) {
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

// The shapes that tensors may have, by their names.
class Shapes {
 public:
  int64_t streams = 1;  // of the tokens at this point of the chain

  Shapes(const Manifest& manifest, const Model& model, const KeptLayers& layers)
      : layout_(manifest.layout),
        width_(model.width),
        tokens_(manifest.dtype()),
        encoded_{manifest.encoder_images, layout_.N(), width_} {
    const Layout& l = layout_;
    const int64_t n = manifest.encoder_images;
    patches_ = clip({l.T, l.V, l.P(), 1});
    shapes_ = {{"images", {n, l.H, l.W, 3}},
               {"special", {n, l.special(), width_}},
               {"fundamental", {l.V, l.V, 3, 3}},
               {"points", clip({l.T, l.V, l.H, l.W, 3})},
               {"confidence", clip({l.T, l.V, l.H, l.W})}};
    of_image_ = {{"depth", {l.H, l.W}},
                 {"depth_confidence", {l.H, l.W}},
                 {"points", {l.H, l.W, 3}},
                 {"points_confidence", {l.H, l.W}}};
    for (const auto& [name, kept] : layers) {
      const int64_t channels = model.streams * static_cast<int64_t>(kept->stages.size()) * width_;
      shapes_[name] = clip({l.T, l.V, l.N(), channels});
      of_image_[name] = {l.N(), channels};
    }
  }

  // Throws unless a tensor has its type and shape; tokens may have from `streams` to `most_streams` streams.
  void check(const Stage& stage, const TensorSpec& spec, int64_t most_streams) {
    const std::string& name = spec.name;
    std::vector<Shape> allowed;
    if (name == "tokens") {
      if (stage.kind == "encoder") allowed.push_back(encoded_);
      for (int64_t count = streams; stage.kind != "encoder" && count <= most_streams; ++count) {
        allowed.push_back(of_streams(count, {layout_.T, layout_.V, layout_.N(), width_}));
      }
    } else if (name == "memory") {
      // the first stage that has memory decides the number of its tokens
      if (memory_.empty())
        memory_ = of_streams(streams, {spec.shape.size() > 1 ? spec.shape[spec.shape.size() - 2] : 1, width_});
      allowed.push_back(memory_);
    } else if (name == "camera") {
      for (int64_t numbers : {kRowNumbers, kQuaternionNumbers})
        allowed.push_back(clip({layout_.T, layout_.V, numbers}));
    } else if (takes_chunks(stage)) {
      allowed.push_back(of_image_.at(name));
      allowed.back().insert(allowed.back().begin(), layout_.images() / stage.calls);
    } else {
      const auto known = shapes_.find(name);
      allowed.push_back(known == shapes_.end() ? patches_ : known->second);
    }
    const bool is_tokens = name == "special" || name == "tokens" || name == "memory" || is_layer(name);
    const DType dtype = name == "images" ? DType::kUint8 : is_tokens ? tokens_ : DType::kFloat32;
    if (spec.dtype == dtype && std::find(allowed.begin(), allowed.end(), spec.shape) != allowed.end()) return;
    Names allowed_specs;
    for (const Shape& shape : allowed) allowed_specs.push_back(text(name_of(dtype), " ", text_of(shape)));
    throw inconsistent(text(name, " of ", stage.name, " is not of its layout"),
                       text(name_of(spec.dtype), " ", text_of(spec.shape)), joined(allowed_specs, " or "));
  }

 private:
  // With an axis of clips in front if there are several.
  Shape clip(Shape shape) const {
    if (layout_.B > 1) shape.insert(shape.begin(), layout_.B);
    return shape;
  }
  Shape of_streams(int64_t count, const Shape& shape) const {
    Shape whole = clip(shape);
    whole.insert(whole.begin(), count);
    return whole;
  }

  const Layout layout_;
  const int64_t width_;
  const DType tokens_;
  const Shape encoded_;
  Shape patches_, memory_;
  std::map<std::string, Shape> shapes_, of_image_;  // of all images; of an image
};

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
void check_flow(const Manifest& manifest, const Model& model, const KeptLayers& layers) {
  const auto places = places_of(manifest);
  // inputs of the chain
  std::set<std::string> available{"images", "special", "mask_ext", "keypoints", "fundamental", "memory"};
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

// Points have a frame, which Pi3's older manifests do not name, and without points there is none.
void check_frame(const Manifest& manifest) {
  if (manifest.points_frame && !manifest.makes("points"))
    throw inconsistent("it has a points_frame and no points", *manifest.points_frame, "no points_frame");
  if (!manifest.points_frame && manifest.makes("points_confidence"))
    throw inconsistent("it does not say which frame its points are in", "no points_frame", kFrames);
}

}  // namespace

void check_chain(const Manifest& manifest) {
  const Model model = Model::of(manifest);
  for (const Stage& stage : manifest.stages) check_kind(stage);
  check_calls(manifest);
  check_blocks(manifest, model);
  check_flow(manifest, model, check_kept(manifest, model));
  check_frame(manifest);
}

}  // namespace page4d
