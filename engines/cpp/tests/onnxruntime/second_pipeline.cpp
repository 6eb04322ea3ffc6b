// ONNX Runtime's library and threads: refused, then the first pipeline's for the whole process; what kAuto takes.
// Arguments: an engine folder with graphs for a CPU, the path of ONNX Runtime's library, a library that is another.
#include <string>

#include "page4d/pipeline.h"
#include "support/check.h"

using namespace page4d;

int main(int, char** arguments) {
  const std::string folder = arguments[1], library = arguments[2], other = arguments[3];
  Options options;
  options.backend = Backend::kOnnxruntime;
  options.onnxruntime_library = other;
  CHECK_TEXT(first_line(refusal([&] { Pipeline::load(folder, options); })), "a library is not ONNX Runtime");
  options.onnxruntime_library = library;
  options.threads = -1;
  CHECK_TEXT(first_line(refusal([&] { Pipeline::load(folder, options); })), "the number of threads is below 0");
  options.threads = 1;
  const Pipeline first = Pipeline::load(folder, options), same = Pipeline::load(folder, options);
  CHECK(first.warnings().empty() && same.warnings().empty());
  options.onnxruntime_library = other;
  options.threads = 2;
  const Pipeline second = Pipeline::load(folder, options);
  CHECK(second.warnings().size() == 2 && second.described() == first.described());
  const std::string not_used = " is not used: the process's first pipeline ";
  CHECK_TEXT(second.warnings()[0], "Options::onnxruntime_library " + other + not_used + "opened " + library);
  CHECK_TEXT(second.warnings()[1], "Options::threads 2" + not_used + "took 1");
  Options automatic;
  automatic.onnxruntime_library = library, automatic.threads = 1;
  std::string messages;
  automatic.log = [&](LogLevel, const char* message) { messages += std::string(message) + "\n"; };
  CHECK_TEXT(Pipeline::load(folder, automatic).described(), first.described());
  CHECK_TEXT(messages, folder + ": " + first.described() + "; the folder has no plans\n");
}
