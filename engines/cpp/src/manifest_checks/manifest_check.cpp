#include "manifest_checks/manifest_check.h"

#include <algorithm>
#include <set>

#include "manifest_checks/manifest_chain.h"
#include "manifest_checks/manifest_files.h"
#include "text.h"

namespace page4d {
namespace {

constexpr int64_t kLargestSide = 65535;
// of a tensor over all calls of its stage: far beyond any machine, far below an overflow
constexpr int64_t kMostElements = int64_t{1} << 40;
constexpr int64_t kMostBytes = int64_t{1} << 43;
constexpr int64_t kMostFlop = int64_t{1} << 60;
constexpr int64_t kMostCalls = 65536;  // of the whole chain: a step and its views are kept for each
constexpr size_t kDeepest = 8;

void check_names(const Stage& stage) {
  std::set<std::string> seen;
  for (const auto* specs : {&stage.inputs, &stage.outputs}) {
    for (const TensorSpec& spec : *specs) {
      if (spec.binding().empty() || !seen.insert(spec.binding()).second) {
        throw inconsistent(text("an input or output of ", stage.name, " has no name of its own"), spec.binding(),
                           "a name for each");
      }
    }
  }
}

void check_tensor(const Stage& stage, const TensorSpec& spec) {
  int64_t total = stage.calls;
  bool fits = !spec.shape.empty() && spec.shape.size() <= kDeepest;
  for (int64_t size : spec.shape) {
    fits = fits && 1 <= size && size <= kMostElements;
    if (fits) total = total > kMostElements / size ? kMostElements + 1 : total * size;
  }
  if (!fits || total > kMostElements) {
    throw inconsistent(text(spec.name, " of ", stage.name, " has a shape that no tensor has"), text_of(spec.shape),
                       text("1 to ", kDeepest, " sizes of 1 or more"));
  }
}

void check_counts(const Stage& stage) {
  const struct {
    const char* name;
    int64_t count, most;
  } limits[] = {{"weight_bytes", stage.weight_bytes, kMostBytes},
                {"flop", stage.flop, kMostFlop},
                {"largest", stage.largest, kMostElements}};
  for (const auto& limit : limits) {
    if (limit.count < 0 || limit.count > limit.most) {
      throw inconsistent(text(limit.name, " of ", stage.name, " is no count"), text(limit.count),
                         text("0 to ", limit.most));
    }
  }
}

void check_plans(const Manifest& manifest) {
  if (!manifest.plans) return;
  const Plans& plans = *manifest.plans;
  if (plans.library != "tensorrt" && plans.library != "rtx")
    throw inconsistent("its plans are of an unknown library", plans.library, "tensorrt, rtx");
  std::vector<std::string> lacking;
  for (const Stage& stage : manifest.stages) {
    if (plans.files.count(stage.name) == 0) lacking.push_back(stage.name);
  }
  if (!lacking.empty()) throw inconsistent("stages have no plan", joined(lacking), "a plan for every stage");
  std::set<std::string> names;
  for (const Stage& stage : manifest.stages) names.insert(stage.name);
  std::vector<std::string> foreign;
  for (const auto& plan : plans.files) {
    if (names.count(plan.first) == 0) foreign.push_back(plan.first);
  }
  if (!foreign.empty()) throw inconsistent("there are plans of no stage", joined(foreign), "a plan for every stage");
}

}  // namespace

Error inconsistent(const std::string& what, const std::string& got, const std::string& allowed) {
  Error error(Code::kIncompatible, "manifest.json does not go together: " + what);
  return error.got(got).allowed(allowed).hint("page4d-export again");
}

Layout layout_of(const std::map<std::string, int64_t>& sizes) {
  const auto size = [&](const char* name) {
    const auto entry = sizes.find(name);
    return entry == sizes.end() ? 1 : entry->second;
  };
  const bool named = sizes.count("T") + sizes.count("V") + sizes.count("H") + sizes.count("W") == 4 &&
                     sizes.size() == 4 + sizes.count("B") + sizes.count("registers");
  if (!named) {
    std::vector<std::string> names;
    for (const auto& size : sizes) names.push_back(size.first);
    throw inconsistent("its layout has other sizes", joined(names), "T, V, H, W, B, registers");
  }
  Layout l{size("T"), size("V"), size("H"), size("W"), size("B")};
  bool fits = l.H % Layout::kPatch == 0 && l.W % Layout::kPatch == 0;
  for (int64_t side : {l.T, l.V, l.H, l.W, l.B}) fits = fits && 1 <= side && side <= kLargestSide;
  const std::string sides = text("T=", l.T, " V=", l.V, " H=", l.H, " W=", l.W, " B=", l.B);
  if (!fits)
    throw inconsistent("its layout is none", sides,
                       text("1 to ", kLargestSide, ", H and W multiples of ", Layout::kPatch));
  int64_t bytes = 3;  // of all images
  for (int64_t side : {l.T, l.V, l.H, l.W, l.B}) bytes = std::min(bytes, kMostElements + 1) * side;
  if (bytes > kMostElements)
    throw inconsistent("its layout is none", sides, text("images of up to ", kMostElements, " bytes"));
  if (sizes.count("registers") != 0) l.registers = sizes.at("registers");  // older manifests have none
  if (l.registers != 0 && l.registers != Layout::kRegisters) {
    throw inconsistent("its layout is none", text("registers=", l.registers),
                       text("0 or ", Layout::kRegisters, " registers"));
  }
  return l;
}

void check_manifest(const Manifest& manifest) {
  if (manifest.precision != "float32" && manifest.precision != "float16" && manifest.precision != "bfloat16" &&
      manifest.precision != "int8" && manifest.precision != "fp8") {
    throw inconsistent("its precision is unknown", manifest.precision, "float32, float16, bfloat16, int8, fp8");
  }
  if (manifest.attention != "auto" && manifest.attention != "plugin" && manifest.attention != "native")
    throw inconsistent("its attention is unknown", manifest.attention, "auto, plugin, native");
  if (manifest.points_frame && manifest.points_frame != "camera" && manifest.points_frame != "world")
    throw inconsistent("its points_frame is unknown", *manifest.points_frame, kFrames);
  const std::optional<std::string>& direction = manifest.pose_direction;
  if (direction && *direction != kWorldToCamera && *direction != kCameraToWorld)
    throw inconsistent("its pose_direction is unknown", *direction, kDirections);
  if (manifest.unit && *manifest.unit != kMetres) throw inconsistent("its unit is unknown", *manifest.unit, kMetres);
  if (manifest.encoder_images < 1)
    throw inconsistent("the encoder takes no images", text(manifest.encoder_images), "1 or more");
  if (manifest.stages.empty()) throw inconsistent("it has no stages", "none", "1 or more");
  std::set<std::string> seen;
  for (const Stage& stage : manifest.stages) {
    const bool is_name =
        !stage.name.empty() && stage.name.find('/') == std::string::npos && stage.name.find('\0') == std::string::npos;
    if (!is_name || !seen.insert(stage.name).second)
      throw inconsistent("a stage has no name of its own", stage.name, "a name without / for each");
    if (stage.calls < 1 || stage.calls > kMostCalls)
      throw inconsistent(stage.name + " is never called", text(stage.calls), text("1 to ", kMostCalls, " calls"));
    check_names(stage);
    for (const TensorSpec& spec : stage.inputs) check_tensor(stage, spec);
    for (const TensorSpec& spec : stage.outputs) check_tensor(stage, spec);
    check_counts(stage);
  }
  check_chain(manifest);
  check_plans(manifest);
  check_files(manifest);
}

}  // namespace page4d
