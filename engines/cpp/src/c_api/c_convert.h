// Between the structs of the C interface and those of the C++ interface.
#pragma once

#include <string>

#include "page4d/error.h"
#include "page4d/image.h"
#include "page4d/page4d.h"

namespace page4d {

// A number as a value of an enumeration that ends with `last`. Throws Error kUsage if it is out of range.
template <class E>
E enumerated(int32_t number, E last, const char* what) {
  if (number < 0 || number > static_cast<int32_t>(last)) {
    throw Error(Code::kUsage, std::string(what) + " is out of range")
        .got(std::to_string(number))
        .allowed("0 to " + std::to_string(static_cast<int32_t>(last)));
  }
  return static_cast<E>(number);
}

// False if pixels or memory are out of range.
inline bool convert(const page4d_image& from, Image& to) noexcept {
  if (from.pixels < 0 || from.pixels > PAGE4D_MONO8 || from.memory < 0 || from.memory > PAGE4D_DEVICE) return false;
  to = {from.data,
        from.width,
        from.height,
        from.pitch,
        static_cast<PixelFormat>(from.pixels),
        static_cast<Memory>(from.memory)};
  return true;
}

inline page4d_image convert(const Image& from) noexcept {
  return {from.data,
          from.width,
          from.height,
          from.pitch,
          static_cast<int32_t>(from.format),
          static_cast<int32_t>(from.memory)};
}

}  // namespace page4d
