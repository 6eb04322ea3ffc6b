// Errors, with the codes of page4d.errors. A message says what was wrong, and on further lines what the value was, what
// is allowed and what to do.
#pragma once

#include <exception>
#include <string>

#include "page4d/export.h"

namespace page4d {

// Also the exit codes of page4d's commands.
enum class Code : int {
  kOk = 0,
  kFailure = 1,         // anything the caller cannot correct
  kUsage = 2,           // frames, masks, cameras or arguments that cannot be used
  kAccuracy = 3,        // an engine's results differ from its reference
  kIncompatible = 4,    // the engine folder is incomplete, damaged, or for another machine or version
  kMissingBackend = 5,  // no TensorRT, no driver, no GPU
  kOutOfMemory = 6,
};

// The only exception of this library, thrown by what loads or constructs; never by Pipeline::run, Rig::push and
// Rig::take.
class PAGE4D_API Error : public std::exception {
 public:
  // what: what was wrong, one clause that names the thing.
  Error(Code code, std::string what) : code_(code), reason_(std::move(what)), text_(reason_) {}

  Error& got(const std::string& value) & { return line("\n  got:     ", value); }
  Error& allowed(const std::string& value) & { return line("\n  allowed: ", value); }
  Error& hint(const std::string& value) & { return line("\n  try:     ", value); }
  Error&& got(const std::string& value) && { return std::move(line("\n  got:     ", value)); }
  Error&& allowed(const std::string& value) && { return std::move(line("\n  allowed: ", value)); }
  Error&& hint(const std::string& value) && { return std::move(line("\n  try:     ", value)); }

  Code code() const noexcept { return code_; }
  // The first line: what was wrong.
  const std::string& reason() const noexcept { return reason_; }
  // All lines.
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  Error& line(const char* label, const std::string& value) {
    text_ += label + value;
    return *this;
  }

  Code code_;
  std::string reason_, text_;
};

// The result of a call that does not throw. The message is a constant, or in the memory of the object that was called
// and valid until its next call.
struct Status {
  Code code = Code::kOk;
  const char* message = "";

  bool ok() const noexcept { return code == Code::kOk; }
  explicit operator bool() const noexcept { return ok(); }
};

}  // namespace page4d
