#include "c_api/c_error.h"

#include <cstdio>

namespace page4d {
namespace {

thread_local char last_error[2048] = "";

}  // namespace

int remember(Code code, const char* message) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return static_cast<int>(code);
}

int refuse_null(const char* argument) noexcept {
  char message[128];
  std::snprintf(message, sizeof message, "an argument is null\n  got:     %s", argument);
  return remember(Code::kUsage, message);
}

int refuse_struct(SizedStruct why, const char* what, size_t size, size_t first) noexcept {
  char message[256];
  if (why == SizedStruct::kUnknown) {
    std::snprintf(
        message, sizeof message,
        "%s uses what this library does not know: the program was compiled for a newer page4d\n  got:     the "
        "library " PAGE4D_VERSION "\n  try:     a newer library, or zeros there",
        what);
  } else {
    std::snprintf(message, sizeof message,
                  "%s has no valid struct_size\n  got:     %zu\n  allowed: its sizeof, %zu or more\n  try:     "
                  "PAGE4D_.._INIT",
                  what, size, first);
  }
  return remember(Code::kUsage, message);
}

}  // namespace page4d

const char* page4d_last_error(void) { return page4d::last_error; }
const char* page4d_version(void) { return page4d::version(); }
