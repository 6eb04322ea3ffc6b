#include "page4d/geometry.h"

#include <algorithm>
#include <string>
#include <vector>

#include "boundary.h"
#include "clip/poses.h"
#include "runtime/output_names.h"
#include "text.h"

namespace page4d {
namespace {

bool is_there(const Output& output) { return output.data != nullptr; }

constexpr char kDepthInputs[] = "depth, camera, intrinsics";

const char* points_inputs(const EngineInfo& info) {
  return info.points_frame == PointsFrame::kWorld ? "points" : "points, camera";
}

// kDepth or kPoints. Mirrors points_source of page4d/network/poses.py.
PointsSource source_of(const EngineInfo& info, const Outputs& outputs, PointsSource source) {
  const bool depth = is_there(outputs.depth) && is_there(outputs.camera) && is_there(outputs.intrinsics);
  const bool points =
      is_there(outputs.points) && (info.points_frame == PointsFrame::kWorld || is_there(outputs.camera));
  if (depth && source != PointsSource::kPoints) return PointsSource::kDepth;
  if (points && source != PointsSource::kDepth) return PointsSource::kPoints;
  std::vector<std::string> names;
  for (const char* name : {"camera", "intrinsics", "depth", "points"}) {
    if (is_there(outputs.*output_called(name))) names.push_back(name);
  }
  std::string what = "the model lacks what points in the world are made of", allowed = kDepthInputs;
  if (source == PointsSource::kBest) {
    allowed += std::string("; or ") + points_inputs(info);
  } else {
    what = text("the model lacks what points in the world from ", source == PointsSource::kDepth ? "depth" : "points",
                " are made of");
    if (source == PointsSource::kPoints) allowed = points_inputs(info);
  }
  throw Error(Code::kUsage, what)
      .got(names.empty() ? "none of it" : joined(names))
      .allowed(allowed)
      .hint(depth    ? "points from depth"
            : points ? "points from points"
                     : "page4d-export with the heads that give it, and memory for these outputs");
}

const void* on_host(const Output& output, const char* name) {
  if (output.memory == Memory::kDevice)
    throw Error(Code::kUsage, text("points in the world are computed on the host, and ", name, " is not there"))
        .got("device memory")
        .allowed("host memory");
  return output.data;
}

}  // namespace

void world_points(const EngineInfo& info, const Outputs& outputs, float* target, PointsSource source) {
  only_errors([&] {
    const Layout& layout = info.layout;
    const int64_t pixels = layout.H * layout.W;
    const bool from_depth = source_of(info, outputs, source) == PointsSource::kDepth;
    const auto* values = static_cast<const float*>(from_depth ? on_host(outputs.depth, "depth")  //
                                                              : on_host(outputs.points, "points"));
    if (!from_depth && info.points_frame == PointsFrame::kWorld) {
      std::copy(values, values + layout.images() * pixels * 3, target);
      return;
    }
    const auto* pose = static_cast<const double*>(on_host(outputs.camera, "camera"));
    const auto* K = static_cast<const double*>(from_depth ? on_host(outputs.intrinsics, "intrinsics") : nullptr);
    for (int64_t i = 0; i < layout.images(); ++i, pose += 16, target += pixels * 3) {
      if (K != nullptr)
        unproject(values + i * pixels, K + i * 9, pose, layout.H, layout.W, target);
      else
        to_world(values + i * pixels * 3, pose, pixels, target);
    }
  });
}

}  // namespace page4d
