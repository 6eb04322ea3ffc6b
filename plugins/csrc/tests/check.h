// Assertions, and the messages of this library's errors.
#pragma once

#include "../../../tests/support/cpp/check.h"
#include "error.h"

// First line of the Error that a call throws.
template <class F>
std::string refusal(const F& call) {
  return first_line(message_of<page4d::plugin::Error>(call));
}
