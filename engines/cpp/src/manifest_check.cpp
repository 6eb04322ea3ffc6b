#include "manifest_check.h"

#include <algorithm>
#include <set>

#include "text.h"

namespace page4d {
namespace {

constexpr int64_t kLargestSide = 65535;
constexpr int64_t kMostNumbers = int64_t{1} << 40;  // of a tensor over all calls of its stage: far beyond any machine, far below an overflow
constexpr size_t kDeepest = 8;
constexpr size_t kMostKept = 64;
constexpr int64_t kPoseNumbers = 12;

void check_names(const Stage& stage) {
  std::set<std::string> seen;
  for (const auto* specs : {&stage.inputs, &stage.outputs}) {
    for (const TensorSpec& spec : *specs) {
      if (spec.binding().empty() || !seen.insert(spec.binding()).second) {
        throw inconsistent(text("an input or output of ", stage.name, " has no name of its own"), spec.binding(), "a name for each");
      }
    }
  }
}

void check_tensor(const Stage& stage, const TensorSpec& spec) {
  int64_t total = stage.calls;
  bool fits = !spec.shape.empty() && spec.shape.size() <= kDeepest;
  for (int64_t size : spec.shape) {
    fits = fits && 1 <= size && size <= kMostNumbers;
    if (fits) total = total > kMostNumbers / size ? kMostNumbers + 1 : total * size;
  }
  if (!fits || total > kMostNumbers) {
    throw inconsistent(text(spec.name, " of ", stage.name, " has a shape that no tensor has"), text_of(spec.shape),
                       text("1 to ", kDeepest, " sizes of 1 or more"));
  }
}

// What the runtime itself fills or reads has the layout's sizes.
void check_values(const Manifest& manifest) {
  const Layout& l = manifest.layout;
  struct Wanted {
    const char* name;
    int64_t count;
    DType dtype;
  };
  const Wanted wanted[] = {{"images", l.images() * l.image_bytes(), DType::kUint8},      {"mask_ext", l.images() * l.P(), DType::kFloat32},
                           {"keypoints", l.images() * l.P(), DType::kFloat32},           {"fundamental", l.V * l.V * 9, DType::kFloat32},
                           {"mask", l.images() * l.P(), DType::kFloat32},                {"camera", l.images() * kPoseNumbers, DType::kFloat32},
                           {"points", l.images() * l.image_bytes(), DType::kFloat32},    {"confidence", l.images() * l.H * l.W, DType::kFloat32}};
  for (const Stage& stage : manifest.stages) {
    for (const auto* specs : {&stage.inputs, &stage.outputs}) {
      for (const TensorSpec& spec : *specs) {
        for (const Wanted& want : wanted) {
          if (spec.name != want.name || (spec.dtype == want.dtype && stage.calls * spec.count() == want.count)) continue;
          throw inconsistent(text(spec.name, " of ", stage.name, " is not of its layout"), text(stage.calls, " x ", name_of(spec.dtype), " ", text_of(spec.shape)),
                             text(want.count, " x ", name_of(want.dtype)));
        }
      }
    }
  }
  if (!manifest.reads("images")) {
    std::vector<std::string> names;
    for (const Stage& stage : manifest.stages) names.push_back(stage.name);
    throw inconsistent("no stage reads images", joined(names), "an encoder");
  }
}

void check_source(const Manifest& manifest, const KeptLayer& kept, const std::string& name) {
  const Stage* found = nullptr;
  for (const Stage& stage : manifest.stages) {
    if (stage.name == name) found = &stage;
  }
  const TensorSpec* spec = found == nullptr ? nullptr : found->output("tokens");
  if (spec == nullptr || found->calls != 1 || spec->dtype != manifest.dtype()) {
    throw inconsistent(text("layer ", kept.layer, " is kept of a stage that makes no such tokens"), name, "stages of one call with an output tokens");
  }
  const int64_t rows = manifest.layout.images() * manifest.layout.N();
  int64_t inner = 1;
  for (size_t i = 1; i + 1 < spec->shape.size(); ++i) inner *= spec->shape[i];
  if (spec->shape.size() < 3 || spec->shape.back() != manifest.width || inner != rows || spec->shape[0] > kept.streams || kept.streams > 2) {
    throw inconsistent(text("layer ", kept.layer, " cannot be gathered from ", name), text_of(spec->shape),
                       text(kept.streams, " x ", rows, " x ", manifest.width));
  }
}

// Kept layers can be gathered from what stages make.
void check_kept(const Manifest& manifest) {
  if (manifest.keep.size() > kMostKept) throw inconsistent("it keeps too many layers", text(manifest.keep.size()), text("up to ", kMostKept));
  std::set<int64_t> seen;
  for (const KeptLayer& kept : manifest.keep) {
    if (kept.layer < 0 || kept.layer > kLargestSide || !seen.insert(kept.layer).second) {
      throw inconsistent("a layer is kept twice, or is none", text(kept.layer), "a number for each");
    }
    if (kept.stages.empty()) check_source(manifest, kept, "");
    for (const std::string& name : kept.stages) check_source(manifest, kept, name);
  }
}

void check_plans(const Manifest& manifest) {
  if (!manifest.plans) return;
  const Plans& plans = *manifest.plans;
  if (plans.library != "tensorrt" && plans.library != "rtx") throw inconsistent("its plans are of an unknown library", plans.library, "tensorrt, rtx");
  std::vector<std::string> lacking;
  for (const Stage& stage : manifest.stages) {
    if (plans.files.count(stage.name) == 0) lacking.push_back(stage.name);
  }
  if (!lacking.empty()) throw inconsistent("stages have no plan", joined(lacking), "a plan for every stage");
}

}  // namespace

Error inconsistent(const std::string& what, const std::string& got, const std::string& allowed) {
  Error error(Code::kIncompatible, "manifest.json does not go together: " + what);
  return error.got(got).allowed(allowed).hint("page4d-export again");
}

Layout layout_of(const std::map<std::string, int64_t>& sizes) {
  const auto size = [&](const char* name) {
    const auto found = sizes.find(name);
    return found == sizes.end() ? 1 : found->second;
  };
  const bool named = sizes.count("T") + sizes.count("V") + sizes.count("H") + sizes.count("W") == 4 && sizes.size() == 4 + sizes.count("B");
  if (!named) {
    std::vector<std::string> names;
    for (const auto& each : sizes) names.push_back(each.first);
    throw inconsistent("its layout has other sizes", joined(names), "T, V, H, W, B");
  }
  const Layout l{size("T"), size("V"), size("H"), size("W"), size("B")};
  bool fits = l.H % Layout::kPatch == 0 && l.W % Layout::kPatch == 0;
  for (int64_t side : {l.T, l.V, l.H, l.W, l.B}) fits = fits && 1 <= side && side <= kLargestSide;
  if (!fits) {
    throw inconsistent("its layout is none", text("T=", l.T, " V=", l.V, " H=", l.H, " W=", l.W, " B=", l.B),
                       text("1 to ", kLargestSide, ", H and W multiples of ", Layout::kPatch));
  }
  return l;
}

void check_manifest(const Manifest& manifest) {
  if (manifest.precision != "float32" && manifest.precision != "float16" && manifest.precision != "bfloat16" && manifest.precision != "int8" &&
      manifest.precision != "fp8") {
    throw inconsistent("its precision is unknown", manifest.precision, "float32, float16, bfloat16, int8, fp8");
  }
  if (manifest.encoder_images < 1) throw inconsistent("the encoder takes no images", text(manifest.encoder_images), "1 or more");
  if (manifest.stages.empty()) throw inconsistent("it has no stages", "none", "1 or more");
  std::set<std::string> seen;
  for (const Stage& stage : manifest.stages) {
    const bool is_name = !stage.name.empty() && stage.name.find('/') == std::string::npos && stage.name.find('\0') == std::string::npos;
    if (!is_name || !seen.insert(stage.name).second) throw inconsistent("a stage has no name of its own", stage.name, "a name without / for each");
    if (stage.calls < 1 || stage.calls > kMostNumbers) throw inconsistent(stage.name + " is never called", text(stage.calls), "1 or more calls");
    check_names(stage);
    for (const TensorSpec& spec : stage.inputs) check_tensor(stage, spec);
    for (const TensorSpec& spec : stage.outputs) check_tensor(stage, spec);
  }
  check_values(manifest);
  check_kept(manifest);
  check_plans(manifest);
}

}  // namespace page4d
