// What ONNX Runtime says while it loads the graphs of a folder. Arguments: the folder, ONNX Runtime's library. Loads
// twice: without a log, when nothing may be printed, and with one, whose messages are printed as "level message".
#include "page4d/pipeline.h"
#include "support/check.h"

using namespace page4d;

int main(int, char** arguments) {
  Options options;
  options.backend = Backend::kOnnxruntime;
  options.onnxruntime_library = arguments[2];
  options.threads = 1;
  Pipeline::load(arguments[1], options);
  options.log = [](LogLevel level, const char* message) { std::printf("%d %s\n", static_cast<int>(level), message); };
  Pipeline::load(arguments[1], options);
}
