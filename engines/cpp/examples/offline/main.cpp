// An engine folder and a folder of frames in; masks, tokens, points and a report out: page4d-run in C++.
#include <csignal>
#include <cstdio>
#include <iostream>
#include <new>

#include "arguments.h"
#include "page4d/error.h"
#include "report.h"
#include "text.h"

namespace offline {
namespace {

using page4d::Code;

constexpr int kInterrupted = 130;

volatile std::sig_atomic_t interrupted = 0;

int end(int code, const std::string& message) {
  std::cerr << "page4d: " << message << std::endl;
  return code;
}

void say(const Summary& summary, const RunOptions& options) {
  if (summary.seeded()) std::cerr << "note: " << summary.seeded_note() << " (" << summary.weights << ")\n";
  for (const std::string& warning : summary.warnings) std::cerr << "note: " << warning << "\n";
  std::cerr << summary.windows.size() << " windows in " << fixed(summary.wall_seconds, 1) << " s, backend "
            << summary.backend << "\n";
  const auto place = [&options](const char* what, const std::filesystem::path& path) {
    std::cerr << what << path_text(options.out / path) << "\n";
  };
  place("report:  ", kReport);
  if (summary.has_mask()) place("masks:   ", "masks");
  if (summary.has_predictions()) {
    const std::filesystem::path window = summary.windows.size() > 1 ? "*" : ".";
    place("points:  ", window / "points.ply");
    place("cameras: ", window / "cameras.json");
    place("depth:   ", window / "depth");
  }
  place("results: ", "*.safetensors");
}

int run(int count, char** words) {
  try {
    const Arguments arguments = parse(count, words);
    if (arguments.help) {
      std::cout << kHelp;
      return static_cast<int>(Code::kOk);
    }
    const Summary summary = run_clip(arguments.run, [] { return interrupted != 0; });
    if (arguments.json) std::cout << to_json(summary).dump(1) << "\n";
    say(summary, arguments.run);
    return static_cast<int>(Code::kOk);
  } catch (const page4d::Error& error) {
    return end(static_cast<int>(error.code()), error.what());
  } catch (const Interrupted&) {
    return end(kInterrupted, "interrupted; nothing half-written was left");
  } catch (const std::filesystem::filesystem_error& error) {
    if (error.code() == std::errc::no_space_on_device) {
      return end(
          static_cast<int>(Code::kFailure),
          "no space left on the disk; nothing half-written was left\n  try:     free some, or -o on another disk");
    }
    return end(static_cast<int>(Code::kFailure),
               error.code().message() + (error.path1().empty() ? "" : ": " + error.path1().string()));
  } catch (const std::bad_alloc&) {
    return end(static_cast<int>(Code::kOutOfMemory),
               "out of memory\n  try:     a smaller --T, --V, --height or --width");
  } catch (const std::exception& error) {
    return end(static_cast<int>(Code::kFailure), error.what());
  }
}

}  // namespace
}  // namespace offline

int main(int count, char** words) {
  for (int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { offline::interrupted = 1; });
  return offline::run(count, words);
}
