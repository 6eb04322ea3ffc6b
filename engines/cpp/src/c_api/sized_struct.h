// Structs of C programs that were compiled with an older or a newer header: `struct_size` says how much is there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace page4d {

// More is no struct, but memory that was never set.
inline constexpr size_t kLargestStruct = 4096;

// The size that ends with `member`, the last one of the first version of a struct: what every caller has.
#define PAGE4D_SIZE_UP_TO(type, member) (offsetof(type, member) + sizeof(type::member))

enum class SizedStruct {
  kFits,
  kWrongSize,  // less than the first version, or never set
  kUnknown,    // of a newer header, and not zero where this one ends
};

// first: bytes of the first version.
constexpr bool is_struct_size(size_t size, size_t first) noexcept { return size >= first && size <= kLargestStruct; }

// Reads a caller's struct: zeros for what its header lacks.
template <class T>
SizedStruct read_sized(const T* from, size_t first, T& to) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  const size_t size = from->struct_size;
  if (!is_struct_size(size, first)) return SizedStruct::kWrongSize;
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  if (size > sizeof(T) && std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char byte) { return byte != 0; }))
    return SizedStruct::kUnknown;
  to = T{};
  std::memcpy(&to, bytes, std::min(size, sizeof(T)));
  to.struct_size = sizeof(T);
  return SizedStruct::kFits;
}

// Fills a caller's struct as far as its header goes; what a newer header has beyond is zeroed.
template <class T>
SizedStruct write_sized(T from, size_t first, T* to) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  const size_t size = to->struct_size;
  if (!is_struct_size(size, first)) return SizedStruct::kWrongSize;
  from.struct_size = size;
  auto* bytes = reinterpret_cast<unsigned char*>(to);
  std::memcpy(bytes, &from, std::min(size, sizeof(T)));
  if (size > sizeof(T)) std::memset(bytes + sizeof(T), 0, size - sizeof(T));
  return SizedStruct::kFits;
}

}  // namespace page4d
