// An array that someone else owns: std::span of C++20.
#pragma once

#include <cstddef>

namespace page4d::plugin {

template <class T>
class View {
 public:
  constexpr View(const T* first, size_t size) : first_(first), size_(size) {}
  template <size_t N>
  constexpr View(const T (&array)[N]) : View(array, N) {}  // NOLINT: as implicit as the array's own decay

  constexpr const T* begin() const { return first_; }
  constexpr const T* end() const { return first_ + size_; }
  constexpr size_t size() const { return size_; }
  constexpr const T& operator[](size_t i) const { return first_[i]; }

 private:
  const T* first_;
  size_t size_;
};

}  // namespace page4d::plugin
