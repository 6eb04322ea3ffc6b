// What leaves the library: Error alone.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "page4d/error.h"

namespace page4d {

// So short that a string of it takes no memory from the heap.
inline constexpr char kOutOfMemoryWords[] = "out of memory";

// A set-up call of the public interface: whatever the standard library throws inside comes out as an Error. Nothing
// else is thrown by what this is made of.
template <class F>
auto only_errors(const F& call) -> decltype(call()) {
  try {
    return call();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(Code::kOutOfMemory, kOutOfMemoryWords);
  } catch (const std::length_error&) {  // more than any machine has
    throw Error(Code::kOutOfMemory, kOutOfMemoryWords);
  } catch (const std::exception& error) {
    throw Error(Code::kFailure, "the system refused a call").got(error.what());
  }
}

}  // namespace page4d
