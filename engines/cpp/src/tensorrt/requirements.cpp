#include "tensorrt/requirements.h"

#include <algorithm>
#include <array>

#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

constexpr int kHalf = 80;  // the oldest compute capability, times ten, whose plans are in 16 bits
// TensorRT-RTX runs on these and newer ones, not on GPUs of data centres and Jetson
constexpr std::array<int, 6> kRtx = {75, 80, 86, 89, 120, 121};

bool runs_on(const std::string& library, int capability) {
  return library != "rtx" || capability > kRtx.back() || std::find(kRtx.begin(), kRtx.end(), capability) != kRtx.end();
}

}  // namespace

const Plans& plans_of(const Manifest& manifest, const std::string& folder) {
  if (manifest.plans) return *manifest.plans;
  throw Error(Code::kIncompatible, "the engine folder has no TensorRT plans")
      .got(folder)
      .hint(text("page4d-export --build-only ", folder, "; without TensorRT Backend::kOnnxruntime"));
}

void require(const Plans& plans, const Machine& machine, const std::string& folder) {
  const std::string rebuild = text("page4d-export --build-only ", folder, " --backend ", plans.library);
  if (machine.version != plans.version) {
    throw Error(Code::kIncompatible, "the plans were built by another " + machine.library)
        .got(plans.version)
        .allowed(machine.version)
        .hint(rebuild);
  }
  const std::string architecture = text("sm_", machine.capability);
  if (!runs_on(plans.library, machine.capability)) {
    throw Error(Code::kIncompatible, text(machine.library, " ", machine.version, " does not run on this GPU"))
        .got(architecture)
        .allowed("sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 and newer")
        .hint("full TensorRT, or in Python --backend cuda");
  }
  const bool fits = plans.chips.empty()
                        ? machine.capability >= plans.least_chip
                        : std::find(plans.chips.begin(), plans.chips.end(), architecture) != plans.chips.end();
  if (!fits) {
    const bool narrower = machine.capability >= kHalf && machine.capability < plans.least_chip;
    const std::string target = plans.library == "rtx" ? text(rebuild, " --target ", architecture) : rebuild;
    throw Error(Code::kIncompatible, "the plans were built for other GPUs than this one")
        .got(plans.chips.empty() ? text("sm_", plans.least_chip, " and newer") : joined(plans.chips))
        .allowed(architecture)
        .hint(narrower ? "page4d-export --fp16: this GPU has no fp8 products" : target);
  }
  if (plans.kernels && *plans.kernels != machine.kernels) {
    throw Error(Code::kIncompatible, "the plans' plugins are of another version of page4d's kernels")
        .got(plans.kernels->substr(0, 12) + "..")
        .allowed(machine.kernels.substr(0, 12) + "..")
        .hint(rebuild);
  }
}

}  // namespace page4d
