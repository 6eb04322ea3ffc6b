// Errors at the C interface: exceptions become codes, the message is kept for the calling thread.
#pragma once

#include <exception>
#include <new>

#include "boundary.h"
#include "c_api/sized_struct.h"
#include "page4d/error.h"
#include "page4d/page4d.h"

namespace page4d {

// Keeps the message for page4d_last_error. Returns the code.
int remember(Code code, const char* message) noexcept;
// Refuses an argument that is null.
int refuse_null(const char* argument) noexcept;
// Refuses a caller's struct. what: its type; size: its struct_size; first: bytes of the first version.
int refuse_struct(SizedStruct why, const char* what, size_t size, size_t first) noexcept;

template <class F>
int guarded(const F& body) noexcept {
  try {
    body();
    return PAGE4D_OK;
  } catch (const Error& error) {
    return remember(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return remember(Code::kOutOfMemory, kOutOfMemoryText);
  } catch (const std::exception& error) {
    return remember(Code::kFailure, error.what());
  } catch (...) {
    return remember(Code::kFailure, "an unknown error");
  }
}

// As read_sized and write_sized, with the error kept. PAGE4D_OK, or PAGE4D_USAGE.
template <class T>
int read_struct(const T* from, size_t first, const char* what, T& to) noexcept {
  const SizedStruct result = read_sized(from, first, to);
  return result == SizedStruct::kFits ? PAGE4D_OK : refuse_struct(result, what, from->struct_size, first);
}
template <class T>
int write_struct(const T& from, size_t first, const char* what, T* to) noexcept {
  const SizedStruct result = write_sized(from, first, to);
  return result == SizedStruct::kFits ? PAGE4D_OK : refuse_struct(result, what, to->struct_size, first);
}

}  // namespace page4d
