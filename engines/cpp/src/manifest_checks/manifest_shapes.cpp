#include "manifest_checks/manifest_shapes.h"

#include <algorithm>

#include "clip/poses.h"
#include "manifest_checks/manifest_check.h"
#include "text.h"

namespace page4d {

Shapes::Shapes(const Manifest& manifest, const StagesModel& model, const KeptLayers& layers)
    : layout_(manifest.layout),
      model_(model),
      tokens_(manifest.dtype()),
      encoded_{manifest.encoder_images, layout_.N(), model.width} {
  const Layout& l = layout_;
  const int64_t n = manifest.encoder_images;
  patches_ = clip({l.T, l.V, l.P(), 1});
  shapes_ = {{"images", {n, l.H, l.W, 3}},
             {"special", {n, l.special(), model.width}},
             {"select", {n, model.width}},
             {"cameras", {l.V, kQuaternionNumbers}},
             {"metric", {l.B}},
             {"fundamental", {l.V, l.V, 3, 3}},
             {"points", clip({l.T, l.V, l.H, l.W, 3})},
             {"confidence", clip({l.T, l.V, l.H, l.W})},
             {"present", clip({l.T, l.V})}};
  of_image_ = {{"depth", {l.H, l.W}},
               {"depth_confidence", {l.H, l.W}},
               {"points", {l.H, l.W, 3}},
               {"points_confidence", {l.H, l.W}},
               {"confidence", {l.H, l.W}},
               {"sky", {l.H, l.W}},
               {kFeatures, {l.P(), model.width}}};
  for (const auto& [name, kept] : layers) {
    const int64_t channels = model.streams * static_cast<int64_t>(kept->stages.size()) * model.width;
    shapes_[name] = clip({l.T, l.V, l.N(), channels});
    of_image_[name] = {l.N(), channels};
  }
}

std::vector<Shapes::Shape> Shapes::allowed(const Stage& stage, const TensorSpec& spec, int64_t most_streams) {
  const std::string& name = spec.name;
  if (name == "tokens") {
    if (stage.kind == "encoder") return {encoded_};
    std::vector<Shape> shapes;
    for (int64_t count = streams; count <= most_streams; ++count)
      shapes.push_back(of_streams(count, {layout_.T, layout_.V, layout_.N(), model_.width}));
    return shapes;
  }
  if (name == "memory") {
    // the first stage that has memory decides the number of its tokens
    if (memory_.empty())
      memory_ = of_streams(streams, {spec.shape.size() > 1 ? spec.shape[spec.shape.size() - 2] : 1, model_.width});
    return {memory_};
  }
  if (name == "camera")
    return {clip({layout_.T, layout_.V, kRowNumbers}), clip({layout_.T, layout_.V, kQuaternionNumbers})};
  if (stage.kind == "camera_encoder" && name == "special") return {{layout_.images(), layout_.special(), model_.width}};
  if (model_.takes_chunks(stage) || pattern_of(name) == kFeatures) {
    const auto known = of_image_.find(name);
    Shape shape = known == of_image_.end() ? of_image_.at(kFeatures) : known->second;
    shape.insert(shape.begin(), layout_.images() / stage.calls);
    return {shape};
  }
  const auto known = shapes_.find(name);
  return {known == shapes_.end() ? patches_ : known->second};
}

void Shapes::check(const Stage& stage, const TensorSpec& spec, int64_t most_streams) {
  const std::string& name = spec.name;
  const std::vector<Shape> shapes = allowed(stage, spec, most_streams);
  const bool is_tokens = name == "special" || name == "tokens" || name == "memory" || pattern_of(name) != name;
  const bool is_bytes = name == "images" || name == "present";
  const DType dtype = is_bytes ? DType::kUint8 : is_tokens ? tokens_ : DType::kFloat32;
  if (spec.dtype == dtype && std::find(shapes.begin(), shapes.end(), spec.shape) != shapes.end()) return;
  std::vector<std::string> allowed_specs;
  for (const Shape& shape : shapes) allowed_specs.push_back(text(name_of(dtype), " ", text_of(shape)));
  throw inconsistent(text(name, " of ", stage.name, " is not of its layout"),
                     text(name_of(spec.dtype), " ", text_of(spec.shape)), joined(allowed_specs, " or "));
}

Shapes::Shape Shapes::clip(Shape shape) const {
  if (layout_.B > 1) shape.insert(shape.begin(), layout_.B);
  return shape;
}

Shapes::Shape Shapes::of_streams(int64_t count, const Shape& shape) const {
  Shape whole = clip(shape);
  whole.insert(whole.begin(), count);
  return whole;
}

}  // namespace page4d
