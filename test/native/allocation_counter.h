// Counts the bytes that operator new holds, so that a test can say how much memory a bad file made the reader take, and
// makes the Nth allocation fail. Include it in one file of a test program.
#pragma once

#include <malloc.h>

#include <cstdlib>
#include <new>

namespace allocation {
inline size_t held_bytes = 0;
inline size_t peak_bytes = 0;
inline long fail_in = 0;  // 1: the next allocation fails; 0 and below: none

// Bytes taken at the worst moment beyond those held when the body began.
template <class Body>
size_t peak_of(Body body) {
  const size_t before = held_bytes;
  peak_bytes = held_bytes;
  body();
  return peak_bytes - before;
}
}  // namespace allocation

void* operator new(std::size_t count) {
  if (allocation::fail_in > 0 && --allocation::fail_in == 0) throw std::bad_alloc();
  void* memory = std::malloc(count == 0 ? 1 : count);
  if (memory == nullptr) throw std::bad_alloc();
  allocation::held_bytes += ::malloc_usable_size(memory);
  if (allocation::held_bytes > allocation::peak_bytes) allocation::peak_bytes = allocation::held_bytes;
  return memory;
}
// Sorting asks for its buffer this way.
void* operator new(std::size_t count, const std::nothrow_t&) noexcept {
  try {
    return operator new(count);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept {
  if (memory != nullptr) allocation::held_bytes -= ::malloc_usable_size(memory);
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
