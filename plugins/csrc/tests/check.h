// Assertions of the tests, in every build type.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "error.h"

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// First line of the Error that a call throws.
template <class F>
std::string refusal(const F& call) {
  try {
    call();
  } catch (const page4d::plugin::Error& error) {
    const std::string text = error.what();
    return text.substr(0, text.find('\n'));
  }
  return "nothing is thrown";
}
