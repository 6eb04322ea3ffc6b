#include "page4d/engine_info.h"

#include <algorithm>

#include "boundary.h"
#include "clip/poses.h"
#include "manifest/engine_folder.h"
#include "runtime/buffer_plan.h"
#include "runtime/info.h"
#include "text.h"

namespace page4d {
namespace {

const Tensor* find(const std::vector<Tensor>& tensors, const std::string& name) {
  const auto tensor =
      std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& entry) { return entry.name == name; });
  return tensor == tensors.end() ? nullptr : &*tensor;
}

// An input or output as callers see it: images and poses by timestep and view.
Tensor tensor_of(const std::string& name, const BufferView& view, const Layout& layout) {
  Tensor tensor{name, view.dtype, view.shape, 0};
  const bool is_matrix = name == "camera" || name == "intrinsics";
  if (name == "images") tensor.shape = {layout.T, layout.V, layout.H, layout.W, 3};
  if (is_matrix) {
    const int64_t side = name == "camera" ? 4 : 3;
    tensor.shape = {layout.T, layout.V, side, side};
    tensor.dtype = DType::kFloat64;
  }
  if (layout.B > 1 && (name == "images" || is_matrix)) tensor.shape.insert(tensor.shape.begin(), layout.B);
  tensor.bytes = bytes_of(tensor.dtype) * static_cast<size_t>(count_of(tensor.shape));
  return tensor;
}

}  // namespace

Fit fit_for(const EngineInfo& engines, Fit fit) { return fit == Fit::kPublished ? engines.published_fit : fit; }

size_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
      return 1;
    case DType::kFloat16:
    case DType::kBfloat16:
      return 2;
    case DType::kFloat64:
      return 8;
    default:
      return 4;
  }
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
      return "uint8";
    case DType::kInt32:
      return "int32";
    case DType::kFloat16:
      return "float16";
    case DType::kBfloat16:
      return "bfloat16";
    case DType::kFloat64:
      return "float64";
    default:
      return "float32";
  }
}

const Tensor* EngineInfo::input(const std::string& name) const { return find(inputs, name); }
const Tensor* EngineInfo::output(const std::string& name) const { return find(outputs, name); }

EngineInfo info_of(const Manifest& manifest, const BufferPlan& plan, bool knows_cameras) {
  EngineInfo info;
  info.exporter = manifest.page4d;
  info.weights = manifest.weights;
  info.licence = manifest.licence;
  info.precision = manifest.precision;
  info.model = manifest.model;
  const std::string published = manifest.options.at("published").string.value_or("");
  if (published == "da3" || published == "da3-mono" || published == "da3-metric")
    info.published_fit = Fit::kPublishedDa3;
  info.layout = manifest.layout;
  info.encoder_images = manifest.encoder_images;
  for (const Stage& stage : manifest.stages) {
    info.stages.push_back({stage.name, stage.kind, stage.calls, stage.flop, stage.weight_bytes, stage.relative_l2});
  }
  for (const auto& [name, view] : plan.starts) {
    if (name != "special") info.inputs.push_back(tensor_of(name, view, manifest.layout));
  }
  const bool knows_focal_lengths = knows_cameras && manifest.takes_focal_lengths();
  for (const auto& [name, view] : plan.outputs) {
    if (name == "sky" && knows_focal_lengths) info.outputs.push_back(tensor_of("intrinsics", view, manifest.layout));
    info.outputs.push_back(tensor_of(name, view, manifest.layout));
    if (name == "camera" && view.shape.back() == kQuaternionNumbers)
      info.outputs.push_back(tensor_of("intrinsics", view, manifest.layout));
  }
  // Pi3's engines were exported before the manifest names the frame
  if (manifest.makes("points"))
    info.points_frame = manifest.points_frame == "world" ? PointsFrame::kWorld : PointsFrame::kCamera;
  if (manifest.unit && (manifest.makes("metric") || knows_focal_lengths)) info.unit = Unit::kMetres;
  if (manifest.reads("cameras") && manifest.makes("camera")) info.unit = Unit::kCameras;
  info.takes_present = manifest.reads("present");
  for (const KeptLayer& kept : manifest.keep) info.kept_layers.push_back(static_cast<int>(kept.layer));
  if (manifest.plans)
    info.plans = PlansInfo{manifest.plans->library, manifest.plans->version, manifest.plans->chips,
                           manifest.plans->kernels.has_value()};
  info.buffer_bytes = static_cast<size_t>(plan.total());
  return info;
}

EngineInfo inspect(const std::string& folder, Files files) {
  return only_errors([&] {
    const EngineFolder opened = EngineFolder::open(folder, files);
    return info_of(opened.manifest, BufferPlan::make(opened.manifest));
  });
}

}  // namespace page4d
