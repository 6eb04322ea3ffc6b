// Exceptions at the public interface: only Error leaves it.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "page4d/error.h"

namespace page4d {

// Short enough for a string without heap memory.
inline constexpr char kOutOfMemoryText[] = "out of memory";

// Runs a call of the public interface. Turns exceptions of the standard library, the only others inside, into Error.
template <class F>
auto only_errors(const F& call) -> decltype(call()) {
  try {
    return call();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(Code::kOutOfMemory, kOutOfMemoryText);
  } catch (const std::length_error&) {  // more than any machine has
    throw Error(Code::kOutOfMemory, kOutOfMemoryText);
  } catch (const std::exception& error) {
    throw Error(Code::kFailure, "the system refused a call").got(error.what());
  }
}

}  // namespace page4d
