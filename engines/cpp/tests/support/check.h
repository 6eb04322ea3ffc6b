// Assertions, and the messages of this library's errors.
#pragma once

#include "../../../../tests/support/cpp/check.h"
#include "page4d/error.h"

// All lines of the Error that a call throws.
template <class F>
std::string refusal(const F& call) {
  return message_of<page4d::Error>(call);
}
