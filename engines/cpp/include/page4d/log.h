// Messages of the library, and of the libraries below it, for the program's own log.
#pragma once

#include <functional>

namespace page4d {

enum class LogLevel {
  kInfo,     // what computes; what TensorRT informs about
  kWarning,  // results are right, but something is slower or other than asked for
  kError,    // explains an Error or a Status that follows
};

// message: one line or several, without a line break at the end, valid during the call.
//
// Any thread calls it, several at once: also threads of TensorRT and ONNX Runtime. What it throws is swallowed. It must
// not call the library.
using LogFunction = std::function<void(LogLevel level, const char* message)>;

}  // namespace page4d
