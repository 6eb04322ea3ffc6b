// What the check of graphs for a CPU says of files. `check_graphs ENGINES STAGE NAME`: of each path on standard input,
// as if it were the stage's graph NAME, it writes a line: "taken", or the first line of the error.
#include <iostream>

#include "files/files.h"
#include "onnxruntime/cpu_graph_check.h"
#include "support/check.h"

using namespace page4d;

int main(int argc, char** arguments) {
  CHECK(argc == 4);
  const EngineFolder folder = EngineFolder::open(arguments[1], Files::kUsed);
  const Stage* stage = nullptr;
  for (const Stage& candidate : folder.manifest.stages)
    if (candidate.name == arguments[2]) stage = &candidate;
  CHECK(stage != nullptr);
  for (std::string path; std::getline(std::cin, path);) {
    const std::optional<std::string> content = read_file(path);
    CHECK(content.has_value());
    try {
      check_cpu_graph(*content, arguments[3], folder, *stage);
      std::cout << "taken\n";
    } catch (const Error& error) {
      std::cout << error.reason() << '\n';
    }
  }
}
