// Counts a call's heap allocations. Replaces operator new: for one file of a program only.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

inline size_t allocations = 0;

// How often the call allocates by operator new.
template <class F>
size_t allocations_of(const F& call) {
  const size_t before = allocations;
  call();
  return allocations - before;
}

// Not inlined: g++ would warn that free does not match new.
#define PAGE4D_REPLACED __attribute__((noinline))

PAGE4D_REPLACED void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes != 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
PAGE4D_REPLACED void* operator new[](size_t bytes) { return operator new(bytes); }
PAGE4D_REPLACED void operator delete(void* memory) noexcept { std::free(memory); }
PAGE4D_REPLACED void operator delete[](void* memory) noexcept { std::free(memory); }
PAGE4D_REPLACED void operator delete(void* memory, size_t) noexcept { std::free(memory); }
PAGE4D_REPLACED void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
