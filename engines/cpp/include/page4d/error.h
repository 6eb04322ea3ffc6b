// What went wrong, in the words and with the codes of page4d.errors: what was wrong, what was given, what is allowed,
// what to do.
#pragma once

#include <exception>
#include <string>

#include "page4d/export.h"

namespace page4d {

// What page4d's commands return to the shell, too.
enum class Code : int {
  kOk = 0,
  kFailure = 1,         // anything that is not the caller's to mend
  kUsage = 2,           // frames, masks, cameras or arguments that cannot be used as given
  kAccuracy = 3,        // an engine departs from its reference
  kIncompatible = 4,    // the engine folder is incomplete, damaged, or was made for something else
  kMissingBackend = 5,  // no TensorRT, no driver, no GPU
  kOutOfMemory = 6,
};

// The one thing that is thrown, while something is loaded or set up; never by Pipeline::run, nor by Rig::push and
// Rig::take.
class PAGE4D_API Error : public std::exception {
 public:
  // what: what was wrong, one clause, naming the thing.
  Error(Code code, std::string what) : code_(code), reason_(std::move(what)), text_(reason_) {}

  Error& got(const std::string& value) & { return line("\n  got:     ", value); }
  Error& allowed(const std::string& value) & { return line("\n  allowed: ", value); }
  Error& hint(const std::string& value) & { return line("\n  try:     ", value); }
  Error&& got(const std::string& value) && { return std::move(line("\n  got:     ", value)); }
  Error&& allowed(const std::string& value) && { return std::move(line("\n  allowed: ", value)); }
  Error&& hint(const std::string& value) && { return std::move(line("\n  try:     ", value)); }

  Code code() const noexcept { return code_; }
  // Without what was given, what is allowed and what to do.
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

// What a call that does not throw has to say. The message lies in the object that was called, until its next call.
struct Status {
  Code code = Code::kOk;
  const char* message = "";

  bool ok() const noexcept { return code == Code::kOk; }
  explicit operator bool() const noexcept { return ok(); }
};

}  // namespace page4d
