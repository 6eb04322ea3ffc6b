// Whether a stage's graph for a CPU is what the exporter makes of the stage, before ONNX Runtime reads it. Mirrors
// page4d_engines/stage_files/cpu_graph_check.py.
#pragma once

#include <string>
#include <string_view>

#include "manifest/engine_folder.h"

namespace page4d {

// content: of the file; file: its name in the manifest. The manifest is the folder's own: 16-bit tensors are not
// widened yet, or are. Throws Error kIncompatible: it is damaged, has inputs or outputs of other names, types or sizes
// than the stage has in float32, operators of an unknown kind, loops that may not end or have too many trips, or
// weights that are not in a file beside it that the manifest lists.
void check_cpu_graph(std::string_view content, const std::string& file, const EngineFolder& folder, const Stage& stage);

}  // namespace page4d
