// Between the structs of the C interface and those of the C++ interface.
#pragma once

#include <algorithm>
#include <iterator>
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

inline constexpr char kImageRefused[] =
    "an image's pixels or memory are out of range, or its reserved bytes are not zero";

static_assert(static_cast<int>(PixelFormat::kMono8) == PAGE4D_MONO8 &&
              static_cast<int>(PixelFormat::kUyvy) == PAGE4D_UYVY &&
              static_cast<int>(PixelFormat::kBayerGrbg8) == PAGE4D_BAYER_GRBG8);

// False: kImageRefused.
inline bool convert(const page4d_image& from, Image& to) noexcept {
  if (from.pixels < 0 || from.pixels > PAGE4D_BAYER_GRBG8 || from.memory < 0 || from.memory > PAGE4D_DEVICE)
    return false;
  if (std::any_of(std::begin(from.reserved), std::end(from.reserved), [](uint64_t bytes) { return bytes != 0; }))
    return false;
  to = {from.data,
        from.width,
        from.height,
        from.pitch,
        static_cast<PixelFormat>(from.pixels),
        static_cast<Memory>(from.memory),
        from.chroma,
        from.chroma_pitch};
  return true;
}

inline page4d_image convert(const Image& from) noexcept {
  return {from.data,
          from.width,
          from.height,
          from.pitch,
          static_cast<int32_t>(from.format),
          static_cast<int32_t>(from.memory),
          from.chroma,
          from.chroma_pitch,
          {}};
}

}  // namespace page4d
